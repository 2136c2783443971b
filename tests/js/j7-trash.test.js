// J7: trash, restore, purge: no ghosts.
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { createHash } from 'node:crypto'
import {
  beginUpload, eventually, found, linkHolder, look, makeFolder, must, newClient, newUser, refused, share, uploadText,
  whenRead,
} from './helpers.js'

const TEXT = 'Notes on the narwhal: a tusk, a spiral, and a long way under the ice.'
const details = async (sb, id) => must(await sb.rpc('file_details', { file_id: id })).data
const usage = async (sb) => must(await sb.rpc('storage_usage', {})).data
const trash = (sb, ...ids) => sb.rpc('trash_nodes', { ids })
const restore = (sb, id, policy = 'fail') => sb.rpc('restore_nodes', { ids: [id], on_conflict: policy })
const trashed = async (sb) => must(await sb.rpc('list_trash', { page_size: 50 })).data.items

/** A folder with a file in it, read when it is to be found, shared with a peer. */
async function world({ read = false } = {}) {
  const [owner, peer] = [await newUser(), await newUser('Peer')]
  const folder = await makeFolder(owner.sb, 'Arctic')
  const ticket = await uploadText(owner.sb, 'narwhal.txt', TEXT, { folder_id: folder })
  if (read) await whenRead(owner.sb, ticket.file_id)
  const shared = await share(owner.sb, folder, peer.email)
  return { owner, peer, folder, ticket, shared, file: ticket.file_id }
}

/** What every surface says of a file to somebody: true where it is there. */
async function surfaces(sb, { ticket, file }) {
  const rows = async (table, column) => must(await sb.from(table).select(column).eq(column, file)).data.length > 0
  const bucket = sb.storage.from(ticket.bucket)
  return {
    node: (await look(sb, file)) !== null,
    details: !(await sb.rpc('file_details', { file_id: file })).error,
    versions: await rows('file_versions', 'file_id'),
    pages: await rows('pages', 'file_id'),
    chunks: await rows('chunks', 'file_id'),
    search: (await found(sb, 'narwhal tusk')).includes(file),
    object: !(await bucket.download(ticket.key)).error,
    signing: !(await bucket.createSignedUrl(ticket.key, 60)).error,
    download: !(await sb.rpc('begin_download', { file_id: file })).error,
  }
}

const everywhere = (seen, expected) => {
  for (const [name, there] of Object.entries(seen)) assert.equal(there, expected, name)
}

test('in the instant of the commit no surface returns what was trashed', async () => {
  const all = await world({ read: true })
  const { owner, peer, folder, file, ticket } = all
  const { data: link } = must(await owner.sb.rpc('create_share_link', { node: folder, level: 'view' }))
  const holder = await linkHolder(link.token)
  everywhere(await surfaces(owner.sb, all), true) // controls
  everywhere(await surfaces(peer.sb, all), true)
  assert.ok(await look(holder, file))
  must(await owner.sb.rpc('set_favourite', { node: file, is_favourite: true }))

  must(await trash(owner.sb, folder))
  everywhere(await surfaces(owner.sb, all), false)
  everywhere(await surfaces(peer.sb, all), false)
  assert.equal(await look(holder, file), null)
  assert.ok((await holder.storage.from(ticket.bucket).download(ticket.key)).error)
  const gone = await refused(newClient().rpc('open_share_link', { token: link.token }), 'PT410', 'GONE')
  assert.equal(gone.reason, 'trashed')
  const [item] = await trashed(owner.sb)
  assert.deepEqual([item.id, item.name, item.kind], [folder, 'Arctic', 'folder'])
  assert.deepEqual(await trashed(peer.sb), []) // who may only look has no trash of it
  assert.equal((await usage(owner.sb)).trash, TEXT.length) // it still counts

  must(await restore(owner.sb, folder, 'keep_both'))
  everywhere(await surfaces(owner.sb, all), true) // vectors too: nothing was embedded since
  everywhere(await surfaces(peer.sb, all), true) // the share is back
  assert.ok(await look(holder, file)) // and the link
  const back = await details(owner.sb, file)
  assert.deepEqual([back.path, back.status, back.versions.length], ['/Arctic/narwhal.txt', 'ready', 1])
  const { data: favourites } = must(await owner.sb.rpc('list_favourites', {}))
  assert.deepEqual(favourites.items.map((i) => i.id), [file])
  assert.deepEqual(await trashed(owner.sb), [])
})

test('what lost its folder returns to the nearest one that lives, and says so', async () => {
  const { sb } = await newUser()
  const top = await makeFolder(sb, 'Top')
  const inner = await makeFolder(sb, 'Inner', top)
  const leaf = await makeFolder(sb, 'Leaf', inner)
  must(await trash(sb, leaf))
  must(await trash(sb, inner))
  const { data } = must(await restore(sb, leaf))
  assert.deepEqual([data.items[0].parent_id, data.items[0].moved], [top, true])
  assert.equal((await details(sb, leaf)).path, '/Top/Leaf')
})

test('purging hides everything and returns the quota at once; rows and bytes follow', async () => {
  const all = await world({ read: true })
  const { owner, folder, ticket, file } = all
  const { data: signed } = must(await owner.sb.storage.from(ticket.bucket).createSignedUrl(ticket.key, 600))
  assert.equal((await fetch(signed.signedUrl)).status, 200)
  must(await trash(owner.sb, folder))
  must(await owner.sb.rpc('purge_nodes', { ids: [folder] }))
  const { used, trash: inTrash } = await usage(owner.sb)
  assert.deepEqual([used, inTrash], [0, 0])
  everywhere(await surfaces(owner.sb, all), false)
  everywhere(await surfaces(all.peer.sb, all), false)
  assert.deepEqual(await trashed(owner.sb), [])
  // LOCKED while the worker is at it, NOT_FOUND when it is through
  const { error } = await restore(owner.sb, folder)
  assert.ok(['LOCKED', 'NOT_FOUND'].includes(JSON.parse(error.details).error), error.details)
  await eventually(async () => (await fetch(signed.signedUrl)).status >= 400, 60, 'the object goes')
  await refused(restore(owner.sb, file), 'PT404', 'NOT_FOUND')
})

test('what is trashed while it is being read does not come back', async () => {
  const { sb } = await newUser()
  const text = Array.from({ length: 80 }, (_, i) => `Paragraph ${i} on a narwhal and its tusk.`).join('\n\n')
  const ticket = await uploadText(sb, 'long.txt', text)
  must(await trash(sb, ticket.file_id))
  for (let i = 0; i < 10; i++, await sleep(150)) {
    assert.equal(await look(sb, ticket.file_id), null)
    assert.deepEqual(await found(sb, 'narwhal tusk'), [])
    assert.deepEqual(must(await sb.from('chunks').select('id').eq('file_id', ticket.file_id)).data, [])
  }
  must(await restore(sb, ticket.file_id))
  assert.equal((await whenRead(sb, ticket.file_id)).status, 'ready') // it goes on
  assert.ok((await found(sb, 'narwhal tusk')).length > 0)
})

test('a name that was taken meanwhile: skip, replace, keep both, or a conflict', async () => {
  const { sb } = await newUser()
  const make = async () => {
    const old = await makeFolder(sb, 'Name')
    must(await trash(sb, old))
    return old
  }
  const old = await make()
  const fresh = await makeFolder(sb, 'name')
  const taken = await refused(restore(sb, old), 'PT409', 'CONFLICT_NAME')
  assert.equal(taken.items[0].existing_id, fresh)
  const { data: skipped } = must(await restore(sb, old, 'skip'))
  assert.equal(skipped.items[0].skipped, true)
  assert.equal(await look(sb, old), null)
  const { data: both } = must(await restore(sb, old, 'keep_both'))
  assert.equal(both.items[0].name, 'Name (2)')
  must(await trash(sb, fresh))
  const third = await makeFolder(sb, 'NAME')
  const { data: again } = must(await restore(sb, fresh, 'replace'))
  assert.equal(again.items[0].replaced_id, third)
  assert.deepEqual((await trashed(sb)).map((i) => i.id), [third])
  await refused(restore(sb, third, 'overwrite'), 'PT422', 'INVALID_ARGUMENT')
  await refused(restore(sb, fresh), 'PT409', 'CONFLICT_STATE') // it is not in the trash
})

test('who may edit may trash; only managers purge; strangers find nothing', async () => {
  const { owner, peer, folder, file } = await world()
  const stranger = await newUser('Stranger')
  await refused(trash(peer.sb, file), 'PT403', 'FORBIDDEN')
  await share(owner.sb, folder, peer.email, 'edit')
  await refused(peer.sb.rpc('purge_nodes', { ids: [file] }), 'PT403', 'FORBIDDEN')
  must(await trash(peer.sb, file))
  await refused(peer.sb.rpc('purge_nodes', { ids: [file] }), 'PT403', 'FORBIDDEN')
  assert.deepEqual((await trashed(peer.sb)).map((i) => i.id), [file])
  must(await restore(peer.sb, file))
  for (const [name, args] of [['trash_nodes', {}], ['purge_nodes', {}], ['restore_nodes', { on_conflict: 'fail' }]]) {
    const problem = await refused(stranger.sb.rpc(name, { ids: [file], ...args }), 'PT404', 'NOT_FOUND')
    assert.equal(problem.items[0].id, file)
    await refused(newClient().rpc(name, { ids: [file], ...args }), 'PT401', 'NOT_AUTHENTICATED')
  }
  await share(owner.sb, folder, peer.email, 'manage')
  must(await peer.sb.rpc('purge_nodes', { ids: [file] }))
  assert.equal(await look(owner.sb, file), null)
})

test('a client removes no object by itself', async () => {
  const { owner, ticket } = await world()
  const bucket = owner.sb.storage.from(ticket.bucket)
  const { data, error } = await bucket.remove([ticket.key])
  assert.ok(error || data.length === 0)
  assert.equal(must(await bucket.download(ticket.key)).data.size, TEXT.length)
})

test('the same content may be uploaded again after it was trashed', async () => {
  const { owner, folder, ticket } = await world({ read: true })
  must(await trash(owner.sb, folder))
  const sha256 = createHash('sha256').update(TEXT).digest('hex')
  const again = await beginUpload(owner.sb, 'narwhal.txt', TEXT.length, { sha256 })
  assert.equal(again.deduplicated, true) // the bytes are paid for already
  assert.notEqual(again.file_id, ticket.file_id)
  await whenRead(owner.sb, again.file_id)
  must(await owner.sb.rpc('empty_trash', {}))
  assert.deepEqual(await found(owner.sb, 'narwhal tusk'), [again.file_id])
  assert.equal((await usage(owner.sb)).used, TEXT.length)
  const { key } = await details(owner.sb, again.file_id)
  assert.equal(must(await owner.sb.storage.from(ticket.bucket).download(key)).data.size, TEXT.length)
})
