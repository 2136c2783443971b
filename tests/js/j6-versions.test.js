// J6: new version, history, restore.
import assert from 'node:assert/strict'
import { readFile } from 'node:fs/promises'
import { test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { beginUpload, found, must, newClient, newUser, refused, share, uploadText, whenRead } from './helpers.js'

const details = async (sb, id) => must(await sb.rpc('file_details', { file_id: id })).data
const history = async (sb, id) =>
  must(await sb.from('file_versions').select('id,no,size,sha256,created_at,created_by,status').eq('file_id', id).order('no')).data

/** Upload a next version; its ticket comes back. */
async function newVersion(sb, fileId, base, content, mime = 'text/plain') {
  const blob = new Blob([content], { type: mime })
  const ticket = await beginUpload(sb, null, blob.size, {
    mime, file_id: fileId, on_conflict: 'version', base_version: base,
  })
  must(await sb.storage.from(ticket.bucket).upload(ticket.key, blob, { contentType: mime }))
  return ticket
}

/** Wait until a version is settled; its row comes back. */
async function settled(sb, fileId, versionId) {
  for (let i = 0; i < 300; i++, await sleep(100)) {
    const row = (await history(sb, fileId)).find((v) => v.id === versionId)
    if (row && !['queued', 'processing'].includes(row.status)) return row
  }
  throw new Error('the version did not settle')
}

const V1 = 'The first draft speaks of walruses and of the northern ice.'
const V2 = 'The second draft speaks of pelicans and of the southern sun, at somewhat greater length.'

test('searches find the old version until the new one is ready, then only the new one', async () => {
  const { sb } = await newUser()
  const first = await uploadText(sb, 'draft.txt', V1)
  await whenRead(sb, first.file_id)
  const second = await newVersion(sb, first.file_id, first.version_id, V2)
  assert.equal(second.file_id, first.file_id)

  for (let head = first.version_id, i = 0; head !== second.version_id; i++, await sleep(20)) {
    assert.ok(i < 1500, 'the new version never became the head')
    // one statement, one moment: what is found and what still waits belong together
    const { data } = must(await sb.rpc('hybrid_search', { query: 'draft speaks', top_k: 20 }))
    assert.equal(data.hits.length, 1, JSON.stringify(data.hits))
    ;[{ version_id: head }] = data.hits
    assert.equal(data.hits[0].is_head, true)
    if (head === first.version_id) assert.ok(data.index_lag > 0, JSON.stringify(data))
    else assert.equal(data.index_lag, 0)
  }
  assert.deepEqual(await found(sb, 'walruses'), [])
  assert.deepEqual(await found(sb, 'pelicans'), [first.file_id])

  const file = await details(sb, first.file_id)
  assert.equal(file.head_version_id, second.version_id)
  assert.equal(file.quota.used, V1.length + V2.length) // every version counts
  assert.deepEqual((await history(sb, first.file_id)).map((v) => [v.no, v.size]), [[1, V1.length], [2, V2.length]])
})

test('a restored version is a version of its own, found at once; shares and links persist', async () => {
  const [owner, peer] = [await newUser(), await newUser('Peer')]
  const { sb } = owner
  const first = await uploadText(sb, 'draft.txt', V1)
  await whenRead(sb, first.file_id)
  await share(sb, first.file_id, peer.email)
  const { data: link } = must(await sb.rpc('create_share_link', { node: first.file_id, level: 'view' }))
  const second = await newVersion(sb, first.file_id, first.version_id, V2)
  await settled(sb, first.file_id, second.version_id)
  const used = (await details(sb, first.file_id)).quota.used

  const { data: third } = must(
    await sb.rpc('restore_version', { file_id: first.file_id, version_id: first.version_id }),
  )
  // nothing is left to do: no reading, no embedding
  assert.deepEqual(await found(sb, 'walruses'), [first.file_id])
  assert.deepEqual(await found(sb, 'pelicans'), [])
  const file = await details(sb, first.file_id)
  assert.deepEqual([file.head_version_id, file.status, file.quota.used], [third.id, 'ready', used])
  assert.equal(file.key, first.key) // the bytes of the first version
  const { data: jobs } = must(await sb.from('ingest_jobs').select('stage,state').eq('version_id', third.id))
  assert.deepEqual([...new Set(jobs.map((job) => job.state))], ['done'])
  const versions = await history(sb, first.file_id)
  assert.deepEqual(versions.map((v) => v.no), [1, 2, 3])
  assert.equal(versions[2].sha256, versions[0].sha256)
  assert.equal(versions[2].created_by, owner.id)

  assert.deepEqual(await found(peer.sb, 'walruses'), [first.file_id])
  const { data: opened } = must(await newClient().rpc('open_share_link', { token: link.token }))
  assert.equal(opened.node.id, first.file_id)
})

test('a version on a stale base is refused and told the head', async () => {
  const { sb } = await newUser()
  const first = await uploadText(sb, 'draft.txt', V1)
  await whenRead(sb, first.file_id)
  const second = await newVersion(sb, first.file_id, first.version_id, V2)
  await settled(sb, first.file_id, second.version_id)
  const stale = await refused(
    sb.rpc('begin_upload', {
      file_id: first.file_id, size: 5, mime: 'text/plain', on_conflict: 'version', base_version: first.version_id,
    }), 'PT409', 'CONFLICT_STATE',
  )
  assert.equal(stale.head, second.version_id)
  await newVersion(sb, first.file_id, stale.head, 'a third one, on what was told') // control
})

test('a version that cannot be read leaves the old one searchable', async () => {
  const { sb } = await newUser()
  const pdf = await readFile(new URL('../../scripts/samples/annual-report-2025.pdf', import.meta.url))
  const ticket = await beginUpload(sb, 'report.pdf', pdf.length, { mime: 'application/pdf' })
  must(await sb.storage.from(ticket.bucket).upload(ticket.key, pdf, { contentType: 'application/pdf' }))
  const file = await whenRead(sb, ticket.file_id)
  assert.equal(file.status, 'ready')
  const before = await found(sb, 'annual report')
  assert.deepEqual([...new Set(before)], [ticket.file_id])

  const broken = await newVersion(sb, ticket.file_id, ticket.version_id, '%PDF-1.7\nnot one at all', 'application/pdf')
  assert.equal((await settled(sb, ticket.file_id, broken.version_id)).status, 'failed')
  const after = await details(sb, ticket.file_id)
  assert.equal(after.head_version_id, ticket.version_id)
  assert.deepEqual([after.problem.new_version_failed, after.problem.error_code], [true, 'corrupt'])
  assert.deepEqual(await found(sb, 'annual report'), before)
  assert.equal(after.key, ticket.key) // and what is downloaded
})

test('versions are purged one by one, never the head', async () => {
  const { sb } = await newUser()
  const first = await uploadText(sb, 'draft.txt', V1)
  await whenRead(sb, first.file_id)
  const purge = (id) => sb.rpc('purge_version', { file_id: first.file_id, version_id: id })
  await refused(purge(first.version_id), 'PT409', 'CONFLICT_STATE')
  const second = await newVersion(sb, first.file_id, first.version_id, V2)
  await settled(sb, first.file_id, second.version_id)
  const head = await refused(purge(second.version_id), 'PT409', 'CONFLICT_STATE')
  assert.equal(head.head, second.version_id)
  must(await purge(first.version_id))
  assert.deepEqual((await history(sb, first.file_id)).map((v) => v.no), [2])
  assert.equal((await details(sb, first.file_id)).quota.used, V2.length)
  await refused(
    sb.rpc('restore_version', { file_id: first.file_id, version_id: first.version_id }), 'PT404', 'NOT_FOUND',
  )
})

test('others need the level: edit to restore, manage to purge; strangers find nothing', async () => {
  const [owner, peer, stranger] = [await newUser(), await newUser('Peer'), await newUser('Stranger')]
  const first = await uploadText(owner.sb, 'draft.txt', V1)
  await whenRead(owner.sb, first.file_id)
  const second = await newVersion(owner.sb, first.file_id, first.version_id, V2)
  await settled(owner.sb, first.file_id, second.version_id)
  const args = { file_id: first.file_id, version_id: first.version_id }
  await share(owner.sb, first.file_id, peer.email, 'view')
  await refused(peer.sb.rpc('restore_version', args), 'PT403', 'FORBIDDEN')
  await share(owner.sb, first.file_id, peer.email, 'edit')
  await refused(peer.sb.rpc('purge_version', args), 'PT403', 'FORBIDDEN')
  must(await peer.sb.rpc('restore_version', args))
  for (const name of ['restore_version', 'purge_version']) {
    await refused(stranger.sb.rpc(name, args), 'PT404', 'NOT_FOUND')
  }
  assert.deepEqual(await history(stranger.sb, first.file_id), [])
})
