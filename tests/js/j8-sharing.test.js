// J8: share with a person, inherit, revoke.
import assert from 'node:assert/strict'
import { randomUUID } from 'node:crypto'
import { test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import {
  everything, found, look, makeFolder, must, newClient, newUser, password, refused, share, uploadText, whenRead,
} from './helpers.js'

const TEXT = 'The launch budget was approved by the board in March.'

/** A folder in a folder with a file in it, read when it is to be found; and people. */
async function world({ read = false } = {}) {
  const [owner, peer, stranger] = [await newUser('Owner'), await newUser('Peer'), await newUser('Stranger')]
  const folder = await makeFolder(owner.sb, 'Launch')
  const inner = await makeFolder(owner.sb, 'Inner', folder)
  const ticket = await uploadText(owner.sb, 'budget.txt', TEXT, { folder_id: inner })
  if (read) await whenRead(owner.sb, ticket.file_id)
  return { owner, peer, stranger, folder, inner, ticket, file: ticket.file_id }
}

const bytes = async (sb, ticket) => (await sb.storage.from(ticket.bucket).download(ticket.key)).data?.size ?? null
const shareAs = (sb, node, grantee, level = 'view', expires = null) =>
  sb.rpc('share_node', { node, grantee, level, expires_at: expires })
const unshare = (sb, id) => sb.rpc('unshare_node', { share_id: id })
const withMe = (sb) => everything(sb, 'shared_with_me', { page_size: 100 })

test('a shared folder opens with all that is and will be in it', async () => {
  const { owner, peer, folder, inner, file, ticket } = await world({ read: true })
  assert.deepEqual(await found(peer.sb, 'launch budget'), []) // control
  const { id } = await share(owner.sb, folder, peer.email)

  const { data: notes } = must(await peer.sb.from('notifications').select('*'))
  assert.equal(notes.length, 1)
  assert.equal(notes[0].node_id, folder)
  const [item] = await withMe(peer.sb)
  assert.deepEqual([item.id, item.name, item.level, item.share_id], [folder, 'Launch', 'view', id])
  assert.equal(item.shared_by.full_name, 'Owner')
  const { data: page } = must(await peer.sb.rpc('list_folder', { folder: inner, sort: 'name', page_size: 10, cursor: null }))
  assert.deepEqual(page.items.map((i) => i.id), [file])
  assert.deepEqual(await found(peer.sb, 'launch budget'), [file])
  assert.equal(await bytes(peer.sb, ticket), TEXT.length)
  const { data: details } = must(await peer.sb.rpc('file_details', { file_id: file }))
  assert.deepEqual([details.level, details.path, details.quota], ['view', '/Launch/Inner/budget.txt', null])

  const later = await uploadText(owner.sb, 'later.txt', 'A later launch budget.', { folder_id: inner })
  await whenRead(owner.sb, later.file_id)
  assert.deepEqual(new Set(await found(peer.sb, 'launch budget')), new Set([file, later.file_id]))

  const { data: why } = must(await owner.sb.rpc('why_access', { user: peer.id, node: file }))
  assert.equal(why.level, 'view')
  assert.deepEqual([why.chain[0].via, why.chain[0].share_id, why.chain[0].node.id], ['share', id, folder])
  assert.equal(why.chain[0].is_inherited, true)
  const { data: own } = must(await peer.sb.rpc('why_access', { user: peer.id, node: file })) // of oneself
  assert.equal(own.level, 'view')

  must(await unshare(owner.sb, id))
  assert.deepEqual(await found(peer.sb, 'launch budget'), [])
  assert.equal(await look(peer.sb, file), null)
  assert.equal(await bytes(peer.sb, ticket), null)
  assert.deepEqual(await withMe(peer.sb), [])
  await refused(peer.sb.rpc('file_details', { file_id: file }), 'PT404', 'NOT_FOUND')
  const { data: none } = must(await owner.sb.rpc('why_access', { user: peer.id, node: file }))
  assert.deepEqual([none.level, none.chain], [null, []])
})

test('links that the peer made die with what was granted', async () => {
  const { owner, peer, folder, file } = await world()
  const { id } = await share(owner.sb, folder, peer.email, 'manage')
  const { data: link } = must(await peer.sb.rpc('create_share_link', { node: file, level: 'view' }))
  const open = () => newClient().rpc('open_share_link', { token: link.token })
  assert.equal(must(await open()).data.node.id, file) // control
  must(await unshare(owner.sb, id))
  await refused(open(), 'PT410', 'GONE')
  await share(owner.sb, folder, peer.email, 'manage') // a new right does not revive it
  await refused(open(), 'PT410', 'GONE')
})

test('nobody gives more than they have', async () => {
  const { owner, peer, stranger, folder, file } = await world()
  const to = { email: stranger.email }
  for (const level of ['view', 'comment', 'edit']) {
    await share(owner.sb, folder, peer.email, level)
    await refused(shareAs(peer.sb, file, to, 'view'), 'PT403', 'FORBIDDEN')
    await refused(shareAs(peer.sb, file, to, 'manage'), 'PT403', 'FORBIDDEN')
  }
  await share(owner.sb, folder, peer.email, 'manage')
  await refused(shareAs(peer.sb, file, to, 'owner'), 'PT403', 'FORBIDDEN')
  const theirs = must(await shareAs(peer.sb, file, to, 'manage')).data // control
  assert.deepEqual((await withMe(stranger.sb)).map((i) => i.id), [file])
  must(await unshare(stranger.sb, theirs.id)) // leaving is always possible
  assert.deepEqual(await withMe(stranger.sb), [])
})

test('an address tells nothing; whoever confirms it later finds the share', async () => {
  const { owner, peer, folder } = await world()
  const unknown = `${randomUUID()}@example.com`
  const known = must(await shareAs(owner.sb, folder, { email: peer.email })).data
  const pending = must(await shareAs(owner.sb, folder, { email: unknown.toUpperCase() })).data
  const shape = (row) => Object.entries(row).map(([key, value]) => [key, value === null ? null : typeof value])
  assert.deepEqual(shape(pending), shape(known)) // no difference to learn from
  assert.deepEqual(Object.keys(pending.grantee), Object.keys(known.grantee))

  const sb = newClient()
  must(await sb.auth.signUp({ email: unknown, password }))
  assert.deepEqual((await withMe(sb)).map((i) => i.id), [folder])
})

test('an expired share is no share', async () => {
  const { owner, peer, folder, file } = await world({ read: true })
  const expires = new Date(Date.now() + 1500).toISOString()
  await share(owner.sb, folder, peer.email, 'view', expires)
  assert.ok(await look(peer.sb, file)) // control
  await sleep(1600)
  assert.equal(await look(peer.sb, file), null)
  assert.deepEqual(await found(peer.sb, 'launch budget'), [])
  assert.deepEqual(await withMe(peer.sb), [])
  const { data } = must(await owner.sb.rpc('list_shares', { node: folder }))
  assert.deepEqual(data.items.map((i) => i.is_expired), [true])
  const past = new Date(Date.now() - 1000).toISOString()
  const wrong = await refused(
    shareAs(owner.sb, folder, { email: peer.email }, 'view', past), 'PT422', 'INVALID_ARGUMENT',
  )
  assert.equal(wrong.field, 'expires_at')
})

test('a stranger who guesses ids finds nothing', async () => {
  const { owner, peer, stranger, folder, file } = await world()
  const { id } = await share(owner.sb, folder, peer.email)
  const calls = [
    ['share_node', { node: folder, grantee: { email: stranger.email }, level: 'view' }],
    ['list_shares', { node: folder }],
    ['unshare_node', { share_id: id }],
    ['why_access', { user: peer.id, node: file }],
    ['file_details', { file_id: file }],
    ['create_share_link', { node: file, level: 'view' }],
  ]
  for (const [name, args] of calls) {
    await refused(stranger.sb.rpc(name, args), 'PT404', 'NOT_FOUND')
    await refused(newClient().rpc(name, args), 'PT401', 'NOT_AUTHENTICATED')
  }
  await refused(unshare(stranger.sb, randomUUID()), 'PT404', 'NOT_FOUND') // absent looks the same
  assert.deepEqual(must(await stranger.sb.from('shares').select('id')).data, [])
  assert.ok(await look(peer.sb, file)) // control
})

test('who leaves a group loses what the group was given', async () => {
  const { owner, peer, folder, file } = await world({ read: true })
  const { data: group } = must(await owner.sb.rpc('create_group', { name: 'Crew' }))
  const { data: member } = must(
    await owner.sb.rpc('add_group_member', { group_id: group.id, member: { email: peer.email } }),
  )
  must(await shareAs(owner.sb, folder, { group_id: group.id }))
  assert.deepEqual(await found(peer.sb, 'launch budget'), [file])
  must(await owner.sb.rpc('remove_group_member', { id: member.id }))
  assert.deepEqual(await found(peer.sb, 'launch budget'), [])
  assert.equal(await look(peer.sb, file), null)
})

test('a file that moves out of the folder is closed, one that moves in is opened', async () => {
  const { owner, peer, folder, file } = await world({ read: true })
  await share(owner.sb, folder, peer.email)
  const other = await uploadText(owner.sb, 'other.txt', 'Another launch budget.')
  await whenRead(owner.sb, other.file_id)
  assert.deepEqual(await found(peer.sb, 'launch budget'), [file])
  must(await owner.sb.rpc('move_nodes', { ids: [file], target: null, on_conflict: 'fail' }))
  must(await owner.sb.rpc('move_nodes', { ids: [other.file_id], target: folder, on_conflict: 'fail' }))
  assert.deepEqual(await found(peer.sb, 'launch budget'), [other.file_id])
  assert.equal(await look(peer.sb, file), null)
  assert.ok(await look(peer.sb, other.file_id))
})
