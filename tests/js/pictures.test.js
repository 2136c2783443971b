// Pictures of files: drawn by a worker, told by list_pictures, downloaded or signed through Storage.
import assert from 'node:assert/strict'
import { readFile } from 'node:fs/promises'
import { test } from 'node:test'
import {
  beginUpload, eventually, linkHolder, must, newClient, newUser, refused, share, uploadText, whenRead,
} from './helpers.js'

const SAMPLE = new URL('../../scripts/samples/annual-report-2025.pdf', import.meta.url)
const pictures = async (sb, id, more = {}) =>
  must(await sb.rpc('list_pictures', { file_ids: [id], ...more })).data.items

/** Width and height of a WEBP without transparency, from its first bytes. */
function sizeOf(bytes) {
  const data = Buffer.from(bytes)
  assert.equal(`${data.toString('latin1', 0, 4)} ${data.toString('latin1', 8, 16)}`, 'RIFF WEBPVP8 ')
  return [data.readUInt16LE(26) & 0x3fff, data.readUInt16LE(28) & 0x3fff]
}

test('a thumbnail and the pages of a PDF, for those who may read it', async () => {
  const owner = await newUser()
  const peer = await newUser('Peer')
  const bytes = await readFile(SAMPLE)
  const ticket = await beginUpload(owner.sb, 'report.pdf', bytes.length, { mime: 'application/pdf' })
  must(await owner.sb.storage.from(ticket.bucket).upload(ticket.key, bytes, { contentType: 'application/pdf' }))
  const file = await whenRead(owner.sb, ticket.file_id)
  assert.equal(file.status, 'ready')
  const rendered = async () => {
    const { data } = must(await owner.sb.from('ingest_jobs').select('state,progress').eq('file_id', file.id).eq('stage', 'render'))
    return data[0]?.state === 'done' && data[0]
  }
  assert.equal((await eventually(rendered, 60, 'the pictures are drawn')).progress, 1)

  const [thumbnail, ...others] = await pictures(owner.sb, file.id)
  assert.deepEqual(others, [])
  assert.equal(Math.max(thumbnail.width, thumbnail.height), 300)
  const { data: pages } = must(await owner.sb.from('pages').select('page,width,height').eq('file_id', file.id).order('page'))
  const drawn = await pictures(owner.sb, file.id, { kind: 'page' })
  assert.deepEqual(drawn.map((p) => p.page), pages.map((p) => p.page))
  for (const [i, page] of drawn.entries()) { // 144 dpi
    assert.ok(Math.abs(page.width - 2 * pages[i].width) < 2 && Math.abs(page.height - 2 * pages[i].height) < 2)
  }

  const derived = owner.sb.storage.from(thumbnail.bucket)
  const { data: signed } = must(await derived.createSignedUrls([thumbnail.key, drawn[0].key], 60))
  for (const [i, picture] of [thumbnail, drawn[0]].entries()) {
    const response = await fetch(signed[i].signedUrl)
    assert.equal(response.headers.get('content-type'), 'image/webp')
    assert.deepEqual(sizeOf(await response.arrayBuffer()), [picture.width, picture.height])
  }

  // nobody else; then those with whom it is shared, and holders of a link
  assert.deepEqual(await pictures(peer.sb, file.id), [])
  assert.ok((await peer.sb.storage.from('derived').createSignedUrl(thumbnail.key, 60)).error)
  assert.ok((await newClient().storage.from('derived').download(thumbnail.key)).error)
  await share(owner.sb, file.id, peer.email)
  const link = must(await owner.sb.rpc('create_share_link', { node: file.id })).data
  for (const reader of [peer.sb, await linkHolder(link.token)]) {
    assert.deepEqual(await pictures(reader, file.id), [thumbnail])
    must(await reader.storage.from('derived').download(thumbnail.key))
  }

  // clients write nothing there
  assert.ok((await derived.upload(`${file.id}/mine.webp`, 'x')).error)
  assert.ok((await derived.update(thumbnail.key, 'x')).error)
  assert.deepEqual(must(await derived.remove([thumbnail.key])).data, [])
  must(await derived.download(thumbnail.key))

  must(await owner.sb.rpc('trash_nodes', { ids: [file.id] }))
  assert.deepEqual(await pictures(owner.sb, file.id), [])
  assert.ok((await derived.createSignedUrl(thumbnail.key, 60)).error)
  must(await owner.sb.rpc('purge_nodes', { ids: [file.id] }))
  const gone = async () => (await fetch(signed[0].signedUrl)).status >= 400
  await eventually(gone, 30, 'the bytes of the picture are gone')
})

test('a text has no picture', async () => {
  const { sb } = await newUser()
  const { file_id } = await uploadText(sb, 'a.txt', 'words alone')
  await whenRead(sb, file_id)
  assert.deepEqual(await pictures(sb, file_id), [])
  await refused(sb.rpc('list_pictures', { file_ids: [file_id], kind: 'film' }), 'PT422', 'INVALID_ARGUMENT')
})
