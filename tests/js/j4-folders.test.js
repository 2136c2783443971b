// J4: folders: create, list, move, rename.
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { beginUpload, everything, look, makeFolder, must, newUser, refused, uploadText, whenRead } from './helpers.js'

const details = async (sb, id) => must(await sb.rpc('file_details', { file_id: id })).data
const below = async (sb, id) =>
  must(await sb.from('nodes').select('id', { count: 'exact', head: true }).contains('path', [id])).count

/** Fill a folder with some ten thousand others, by copying copies. */
async function fill(sb, into) {
  let folder = await makeFolder(sb, 'leaf', into)
  for (let i = 0; i < 9; i++) await makeFolder(sb, `${i}`, folder)
  for (let level = 0; level < 3; level++) {
    const above = await makeFolder(sb, `level ${level}`, into)
    for (let i = 0; i < 10; i++) {
      must(await sb.rpc('copy_nodes', { ids: [folder], target: above, on_conflict: 'rename' }))
    }
    must(await sb.rpc('purge_nodes', { ids: [folder] }))
    folder = above
  }
}

test('a folder with ten thousand below it moves in one go, and nothing else does', async () => {
  const { sb } = await newUser()
  const big = await makeFolder(sb, 'Big')
  await fill(sb, big)
  const ticket = await uploadText(sb, 'deep.txt', 'a file in the tree', { folder_id: big })
  await whenRead(sb, ticket.file_id)
  const jobs = async () => must(await sb.from('ingest_jobs').select('id').eq('file_id', ticket.file_id)).data.length
  const [count, jobCount] = [await below(sb, big), await jobs()]
  assert.ok(count > 10_000, `${count}`)

  const target = await makeFolder(sb, 'Projects')
  const { data: moved } = must(await sb.rpc('move_nodes', { ids: [big], target, on_conflict: 'rename' }))
  assert.deepEqual([moved.items[0].id, moved.items[0].parent_id], [big, target])
  assert.equal(await below(sb, target), count + 1)
  assert.equal(await below(sb, big), count)
  const deep = await details(sb, ticket.file_id)
  assert.equal(deep.path, '/Projects/Big/deep.txt')
  assert.equal(deep.key, ticket.key) // no object was touched
  assert.equal(await jobs(), jobCount) // no job was queued
  assert.equal(must(await sb.storage.from(ticket.bucket).download(ticket.key)).data.size, 18)

  must(await sb.rpc('rename_node', { id: target, name: 'projects' })) // a change of case alone
  assert.equal((await details(sb, ticket.file_id)).path, '/projects/Big/deep.txt')
  const whole = await details(sb, target)
  assert.deepEqual([whole.child_count, whole.total_size], [1, 18])
})

test('a folder says how many are in it and how many bytes are below it', async () => {
  const { sb } = await newUser()
  const top = await makeFolder(sb, 'Top')
  const inner = await makeFolder(sb, 'Inner', top)
  await uploadText(sb, 'a.txt', '12345', { folder_id: inner })
  await uploadText(sb, 'b.txt', '123', { folder_id: top })
  const { data: page } = must(await sb.rpc('list_folder', { folder: null, sort: 'name', page_size: 100, cursor: null }))
  assert.deepEqual(page.items.map((i) => [i.name, i.child_count, i.total_size]), [['Top', 2, 8]])
})

test('pages have no gaps and no doubles while others insert', async () => {
  const { sb } = await newUser()
  const folder = await makeFolder(sb, 'Busy')
  const names = Array.from({ length: 15 }, (_, i) => `item ${String(i).padStart(2, '0')}`)
  await Promise.all(names.map((name) => makeFolder(sb, name, folder)))
  for (const sort of ['name', '-created_at']) {
    const seen = []
    for (let cursor = null, page = 0; ; page++) {
      const { data } = must(await sb.rpc('list_folder', { folder, sort, page_size: 6, cursor }))
      seen.push(...data.items.map((i) => i.name))
      for (const name of ['a', 'item 12 and a half', 'z']) await makeFolder(sb, `${name} ${sort} ${page}`, folder)
      if ((cursor = data.next_cursor) === null || page === 40) break
    }
    assert.deepEqual(seen.filter((name) => /^item \d\d$/.test(name)).sort(), names, sort)
    assert.equal(new Set(seen).size, seen.length, sort)
    await refused(sb.rpc('list_folder', { folder, sort, page_size: 6, cursor: 'forged' }), 'PT422', 'INVALID_ARGUMENT')
  }
})

test('a recursive listing honours shares', async () => {
  const [owner, peer, stranger] = [await newUser(), await newUser('Peer'), await newUser('Stranger')]
  const top = await makeFolder(owner.sb, 'Top')
  const open = await makeFolder(owner.sb, 'Open', top)
  const deep = await makeFolder(owner.sb, 'Deep', open)
  await makeFolder(owner.sb, 'Closed', top)
  must(await owner.sb.rpc('share_node', { node: open, grantee: { email: peer.email }, level: 'view', expires_at: null }))
  const listed = async (sb, folder) =>
    (await everything(sb, 'list_folder', { folder, recursive: true, page_size: 2 })).map((i) => i.name)
  assert.deepEqual(await listed(owner.sb, top), ['Closed', 'Deep', 'Open'])
  assert.deepEqual(await listed(peer.sb, open), ['Deep'])
  assert.deepEqual(await listed(peer.sb, deep), [])
  await refused(peer.sb.rpc('list_folder', { folder: top, recursive: true }), 'PT404', 'NOT_FOUND')
  await refused(stranger.sb.rpc('list_folder', { folder: open, recursive: true }), 'PT404', 'NOT_FOUND')
})

test('a folder does not go into itself', async () => {
  const { sb } = await newUser()
  const a = await makeFolder(sb, 'a')
  const b = await makeFolder(sb, 'b', a)
  for (const target of [a, b]) {
    await refused(sb.rpc('move_nodes', { ids: [a], target, on_conflict: 'fail' }), 'PT409', 'CYCLE')
  }
  assert.equal((await look(sb, a)).parent_id, null)
})

test('names differ in more than case and composition', async () => {
  const { sb } = await newUser()
  const a = await makeFolder(sb, 'projects')
  const taken = await refused(sb.rpc('create_folder', { parent: null, name: 'PROJECTS' }), 'PT409', 'CONFLICT_NAME')
  assert.deepEqual([taken.existing_id, taken.suggested], [a, 'PROJECTS (2)'])
  await makeFolder(sb, 'Résumé'.normalize('NFC'))
  await refused(sb.rpc('create_folder', { parent: null, name: 'résumé'.normalize('NFD') }), 'PT409', 'CONFLICT_NAME')
  await refused(sb.rpc('rename_node', { id: a, name: 'RÉSUMÉ'.normalize('NFD') }), 'PT409', 'CONFLICT_NAME')
  for (const name of ['', 'a/b', '..', 'x'.repeat(256), 'a\u0007b']) {
    const wrong = await refused(sb.rpc('rename_node', { id: a, name }), 'PT422', 'INVALID_ARGUMENT')
    assert.equal(wrong.field, 'name')
  }
})

test('of a batch all move or none does, and each reason is told', async () => {
  const { sb } = await newUser()
  const target = await makeFolder(sb, 'target')
  await makeFolder(sb, 'taken', target)
  const [taken, free] = [await makeFolder(sb, 'taken'), await makeFolder(sb, 'free')]
  const nobody = '00000000-0000-4000-8000-000000000000'
  const problem = await refused(
    sb.rpc('move_nodes', { ids: [free, taken, nobody], target, on_conflict: 'fail' }), 'PT409', 'CONFLICT_NAME',
  )
  assert.deepEqual(problem.items.map((i) => [i.id, i.error]), [[taken, 'CONFLICT_NAME'], [nobody, 'NOT_FOUND']])
  assert.ok(problem.items.every((i) => i.message))
  assert.equal((await look(sb, free)).parent_id, null)
  must(await sb.rpc('move_nodes', { ids: [free, taken], target, on_conflict: 'rename' })) // control
  assert.deepEqual([(await look(sb, free)).parent_id, (await look(sb, taken)).name], [target, 'taken (2)'])
})

test('nothing leaves a share without the level manage', async () => {
  const [owner, peer] = [await newUser(), await newUser('Peer')]
  const shared = await makeFolder(owner.sb, 'Shared')
  const inner = await makeFolder(owner.sb, 'Inner', shared)
  const ticket = await uploadText(owner.sb, 'a.txt', 'a', { folder_id: shared })
  const grant = (level) =>
    owner.sb.rpc('share_node', { node: shared, grantee: { email: peer.email }, level, expires_at: null })
  const move = (ids, target) => peer.sb.rpc('move_nodes', { ids, target, on_conflict: 'fail' })
  must(await grant('edit'))
  await refused(move([ticket.file_id], null), 'PT403', 'FORBIDDEN')
  must(await move([ticket.file_id], inner)) // control: inside of the share
  assert.equal((await look(owner.sb, ticket.file_id)).parent_id, inner)
  must(await grant('manage'))
  must(await move([ticket.file_id], null))
  assert.equal(await look(owner.sb, ticket.file_id), null)
  assert.equal((await details(peer.sb, ticket.file_id)).owner_id, peer.id)
})

test('folders are not endlessly deep', async () => {
  const { sb } = await newUser()
  let folder = null
  let depth = 0
  for (; depth < 200; depth++) {
    const { data, error } = await sb.rpc('create_folder', { parent: folder, name: 'deeper' })
    if (error) break
    folder = data.id
  }
  const wrong = await refused(sb.rpc('create_folder', { parent: folder, name: 'deeper' }), 'PT422', 'INVALID_ARGUMENT')
  assert.deepEqual([wrong.field, wrong.limit], ['depth', depth])
  const [a, b] = [await makeFolder(sb, 'a'), await makeFolder(sb, 'b')]
  must(await sb.rpc('move_nodes', { ids: [a], target: b, on_conflict: 'fail' })) // control
  await refused(sb.rpc('move_nodes', { ids: [b], target: folder, on_conflict: 'fail' }), 'PT422', 'INVALID_ARGUMENT')
})

test('of two opposite moves at once one wins, and there is never a loop', async () => {
  const { sb } = await newUser()
  for (let round = 0; round < 5; round++) {
    const [a, b] = [await makeFolder(sb, `a ${round}`), await makeFolder(sb, `b ${round}`)]
    const both = await Promise.all([[a, b], [b, a]].map(([id, target]) =>
      sb.rpc('move_nodes', { ids: [id], target, on_conflict: 'fail' })))
    const lost = both.filter((one) => one.error)
    assert.equal(lost.length, 1, JSON.stringify(both))
    assert.equal(lost[0].error.code, 'PT409')
    assert.ok(['CYCLE', 'CONFLICT_STATE'].includes(JSON.parse(lost[0].error.details).error))
    const parents = [(await look(sb, a)).parent_id, (await look(sb, b)).parent_id]
    assert.equal(parents.filter((parent) => parent === null).length, 1)
  }
})

test('strangers and visitors get nowhere', async () => {
  const [owner, stranger] = [await newUser(), await newUser('Stranger')]
  const a = await makeFolder(owner.sb, 'a')
  const calls = [
    ['rename_node', { id: a, name: 'mine' }],
    ['move_nodes', { ids: [a], target: null, on_conflict: 'fail' }],
    ['list_folder', { folder: a }],
    ['create_folder', { parent: a, name: 'x' }],
  ]
  for (const [name, args] of calls) await refused(stranger.sb.rpc(name, args), 'PT404', 'NOT_FOUND')
  must(await owner.sb.rpc('list_folder', { folder: a })) // control
  const { error } = await beginUpload(stranger.sb, 'x.txt', 1, { folder_id: a }).then(() => ({}), (e) => ({ error: e }))
  assert.equal(JSON.parse(error.details).error, 'NOT_FOUND')
})
