// What people do around files: favourites, recent, tags, comments, downloads.
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { must, newClient, newUser, uploadText } from './helpers.js'

const TEXT = 'The quick brown fox.'

test('favourites and what was opened last are lists of nodes', async () => {
  const { sb } = await newUser()
  const { data: folder } = must(await sb.rpc('create_folder', { name: 'Plans' }))
  const ticket = await uploadText(sb, 'fox.txt', TEXT)

  const { data: state } = must(await sb.rpc('set_favourite', { node: folder.id }))
  assert.equal(state.is_favourite, true)
  must(await sb.rpc('set_favourite', { node: ticket.file_id, is_favourite: true }))
  const { data: page } = must(await sb.rpc('list_favourites', { page_size: 1 }))
  assert.deepEqual(page.items.map((item) => item.name), ['fox.txt'])
  const { data: rest } = must(await sb.rpc('list_favourites', { page_size: 1, cursor: page.next_cursor }))
  assert.deepEqual(rest.items.map((item) => item.name), ['Plans'])
  assert.equal(rest.next_cursor, null)

  // the star beside each name of a list comes with one more request
  const { data: stars } = must(
    await sb.from('node_user_state').select('node_id').eq('is_favourite', true).in('node_id', [folder.id]),
  )
  assert.deepEqual(stars, [{ node_id: folder.id }])

  must(await sb.rpc('record_view', { node: folder.id }))
  const { data: recent } = must(await sb.rpc('list_recent'))
  assert.deepEqual(recent.items.map((item) => item.id), [folder.id])

  const stranger = await newUser('Stranger')
  const { error } = await stranger.sb.rpc('set_favourite', { node: folder.id })
  assert.equal(error.code, 'PT404')
  assert.deepEqual(must(await stranger.sb.from('node_user_state').select()).data, [])
})

test('a download asks where the bytes are, and counts', async () => {
  const { sb } = await newUser()
  const ticket = await uploadText(sb, 'fox.txt', TEXT)
  const { data: place } = must(await sb.rpc('begin_download', { file_id: ticket.file_id }))
  assert.equal(place.name, 'fox.txt')
  const { data: bytes } = must(await sb.storage.from(place.bucket).download(place.key))
  assert.equal(await bytes.text(), TEXT)

  const both = [1, 2, 3, 4].map(() => sb.rpc('begin_download', { file_id: ticket.file_id, version_id: null }))
  for (const answer of await Promise.all(both)) must(answer)
  const { data: stats } = must(
    await sb.from('nodes').select('name,node_stats(views,downloads)').eq('id', ticket.file_id).single(),
  )
  assert.deepEqual(stats.node_stats, { views: 0, downloads: 5 })

  for (const [client, code] of [[(await newUser('Stranger')).sb, 'PT404'], [newClient(), 'PT401']]) {
    const { error } = await client.rpc('begin_download', { file_id: ticket.file_id })
    assert.equal(error.code, code)
  }
})

test('tags are put on, listed, and filter', async () => {
  const { sb } = await newUser()
  const ids = []
  for (const name of ['a.txt', 'b.txt']) ids.push((await uploadText(sb, name, TEXT)).file_id)
  const { data: tagged } = must(await sb.rpc('tag_nodes', { ids, add: ['Q3', 'Café'] }))
  assert.deepEqual(tagged.items.map((item) => item.tags), [['Café', 'Q3'], ['Café', 'Q3']])
  must(await sb.rpc('tag_nodes', { ids: [ids[0]], remove: ['q3'] }))

  const { data: tags } = must(await sb.rpc('list_tags'))
  assert.deepEqual(tags.items, [{ tag: 'Café', count: 2 }, { tag: 'Q3', count: 1 }])
  const { data: listed } = must(await sb.rpc('list_folder', { filters: { tags: ['q3'] } }))
  assert.deepEqual(listed.items.map((item) => item.name), ['b.txt'])
  const { data: nodes } = must(await sb.from('nodes').select('name,node_tags(tag)').order('name'))
  assert.deepEqual(nodes[0], { name: 'a.txt', node_tags: [{ tag: 'Café' }] })

  const { error } = await sb.rpc('tag_nodes', { ids, add: ['x'.repeat(65)] })
  assert.equal(error.code, 'PT422')
  assert.equal(JSON.parse(error.details).field, 'add')
  const stranger = await newUser('Stranger')
  assert.deepEqual(must(await stranger.sb.rpc('list_tags')).data.items, [])
})

test('whoever is shared with is told, comments, and the owner is told of that', async () => {
  const owner = await newUser()
  const peer = await newUser('Test Peer')
  const stranger = await newUser('Stranger')
  const { file_id: node } = await uploadText(owner.sb, 'fox.txt', TEXT)
  must(await owner.sb.rpc('share_node', { node, grantee: { email: peer.email }, level: 'comment', expires_at: null }))

  const told = async (who) => must(await who.sb.from('notifications').select('*').order('created_at')).data
  const [given] = await told(peer)
  assert.equal(given.kind, 'share_given')
  assert.equal(given.node_id, node)
  assert.equal(given.actor_id, owner.id)
  assert.deepEqual(given.channels, ['email', 'push', 'desktop'])

  const { data: said } = must(await peer.sb.rpc('add_comment', { node, body: 'Which fox?' }))
  must(await owner.sb.rpc('add_comment', { node, body: 'The brown one.', reply_to: said.id, mentions: [peer.id] }))
  const { data: thread } = must(
    await peer.sb.from('comments').select('body,parent_id,author_id').eq('node_id', node).order('created_at'),
  )
  assert.deepEqual(thread, [
    { body: 'Which fox?', parent_id: null, author_id: peer.id },
    { body: 'The brown one.', parent_id: said.id, author_id: owner.id },
  ])
  const { data: authors } = must(await peer.sb.rpc('people', { ids: thread.map((c) => c.author_id) }))
  assert.deepEqual(authors.items.map((who) => who.full_name), ['Test Owner', 'Test Peer'])

  assert.deepEqual((await told(owner)).map((n) => n.kind), ['comment_added'])
  assert.deepEqual((await told(peer)).map((n) => n.kind), ['share_given', 'comment_mentioned'])

  const { error } = await peer.sb.rpc('edit_comment', { id: said.id, body: '' })
  assert.equal(JSON.parse(error.details).field, 'body')
  must(await peer.sb.rpc('edit_comment', { id: said.id, body: 'Which fox, please?' }))
  must(await owner.sb.rpc('resolve_comment', { id: said.id }))
  must(await peer.sb.rpc('delete_comment', { id: said.id }))
  const { data: left } = must(await owner.sb.from('comments').select('body').order('created_at'))
  assert.deepEqual(left.map((c) => c.body), [null, 'The brown one.'])

  const { data: marked } = must(await peer.sb.rpc('mark_notifications_read', { ids: [given.id] }))
  assert.deepEqual(marked, { marked: 1, unread: 1 })
  must(await peer.sb.from('notifications').delete().eq('id', given.id))
  assert.equal((await told(peer)).length, 1)

  assert.deepEqual(await told(stranger), [])
  assert.deepEqual(must(await stranger.sb.from('comments').select()).data, [])
  const refused = await stranger.sb.rpc('add_comment', { node, body: 'x' })
  assert.equal(refused.error.code, 'PT404')
})

test('what is muted makes no notification', async () => {
  const owner = await newUser()
  const peer = await newUser('Test Peer')
  const { data: me } = must(await peer.sb.from('user_profiles').select('id,preferences').single())
  const wish = (notifications) =>
    peer.sb.from('user_profiles').update({ preferences: { ...me.preferences, notifications } }).eq('id', me.id)
  const { error } = await wish({ muted: ['everything'] })
  assert.equal(JSON.parse(error.details).field, 'preferences.notifications.muted')
  must(await wish({ email: false, muted: ['share_given'] }))

  const { data: folder } = must(await owner.sb.rpc('create_folder', { name: 'Plans' }))
  const share = { node: folder.id, grantee: { email: peer.email } }
  must(await owner.sb.rpc('share_node', { ...share, level: 'view' }))
  assert.deepEqual(must(await peer.sb.from('notifications').select()).data, [])
  must(await owner.sb.rpc('share_node', { ...share, level: 'edit' }))
  const { data: told } = must(await peer.sb.from('notifications').select('kind,channels'))
  assert.deepEqual(told, [{ kind: 'share_changed', channels: ['push', 'desktop'] }])
})
