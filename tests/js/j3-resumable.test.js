// J3: resumable upload of a large file.
import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { createInterface } from 'node:readline'
import { test } from 'node:test'
import { fileURLToPath } from 'node:url'
import { admin, beginUpload, makeFolder, must, newUser, refused } from './helpers.js'
import { MIB, bytesOf, digest, expireUpload, expired, refusedUpload, send } from './uploads.js'

const MIME = 'application/octet-stream'
const SIZE = 30 * MIB // five parts

const ticketFor = (sb, name, size = SIZE, more = {}) => beginUpload(sb, name, size, { mime: MIME, ...more })
const stateOf = async (sb, ticket) =>
  must(await sb.from('uploads').select('state,bytes_received').eq('id', ticket.upload_id).single()).data
const detailsOf = async (sb, id) => must(await sb.rpc('file_details', { file_id: id })).data

/** Upload in another process and kill it at 40 %; the upload URL that it had got comes back. */
async function killedAt40(seed, ticket, token) {
  const program = fileURLToPath(new URL('uploads.js', import.meta.url))
  const child = spawn(process.execPath, [program, token, seed, JSON.stringify({ ...ticket, size: SIZE })])
  let uploadUrl
  for await (const line of createInterface({ input: child.stdout })) {
    const [what, value] = line.split(' ')
    if (what === 'url') uploadUrl = value
    if (what === 'accepted' && Number(value) >= 0.4 * SIZE) child.kill('SIGKILL')
  }
  assert.equal(child.signalCode ?? (await new Promise((resolve) => child.on('exit', (_, s) => resolve(s)))), 'SIGKILL')
  return uploadUrl
}

test('a process killed at 40 % is followed by another one that goes on', async () => {
  const { sb, session } = await newUser()
  const ticket = await ticketFor(sb, 'big.bin')
  assert.deepEqual([ticket.mode, ticket.chunk_size], ['tus', 6291456])
  const uploadUrl = await killedAt40('killed', ticket, session.access_token)
  const open = await stateOf(sb, ticket)
  assert.ok(['open', 'uploading'].includes(open.state), open.state)
  assert.equal(open.bytes_received, 0) // known once it is complete

  const bytes = bytesOf('killed', SIZE)
  const rest = await send(bytes, ticket, session.access_token, { uploadUrl })
  assert.ok(rest.offset >= 0.4 * SIZE && rest.offset < SIZE, `HEAD says ${rest.offset}`)
  assert.equal(rest.requests[0], 'HEAD')
  assert.equal(rest.requests.filter((method) => method === 'POST').length, 0)
  assert.deepEqual(await stateOf(sb, ticket), { state: 'completed', bytes_received: SIZE })

  const details = await detailsOf(sb, ticket.file_id)
  assert.equal(details.versions.length, 1)
  assert.deepEqual([details.quota.used, details.quota.reserved], [SIZE, 0])
  const blob = must(await sb.storage.from(ticket.bucket).download(ticket.key)).data
  assert.equal(digest(Buffer.from(await blob.arrayBuffer())), digest(bytes))
})

test('a token that expires on the way is refused; with a refreshed one it goes on', async () => {
  const { sb, session } = await newUser()
  const bytes = bytesOf('expired', 14 * MIB)
  const ticket = await ticketFor(sb, 'slow.bin', bytes.length)
  const first = await send(bytes, ticket, session.access_token, { stopAfter: 6 * MIB })

  const late = await refusedUpload(send(bytes, ticket, expired(session.access_token), { uploadUrl: first.url }))
  assert.ok([401, 403].includes(late.status), `${late.status} ${late.text}`)
  const { data } = must(await sb.auth.refreshSession())
  const rest = await send(bytes, ticket, data.session.access_token, { uploadUrl: first.url })
  assert.equal(rest.offset, 6 * MIB)
  assert.equal((await stateOf(sb, ticket)).state, 'completed')
})

test('an upload URL that expired is 410; the same ticket gets another one', async () => {
  const { sb, session } = await newUser()
  const bytes = bytesOf('gone', 7 * MIB)
  const ticket = await ticketFor(sb, 'gone.bin', bytes.length)
  const first = await send(bytes, ticket, session.access_token, { stopAfter: 6 * MIB })
  await expireUpload(first.url)

  const headers = { authorization: `Bearer ${session.access_token}`, 'tus-resumable': '1.0.0' }
  assert.equal((await fetch(first.url, { method: 'HEAD', headers })).status, 410)
  const patch = { method: 'PATCH', body: 'x', headers: {
    ...headers, 'upload-offset': String(6 * MIB), 'content-type': 'application/offset+octet-stream',
  } }
  assert.equal((await fetch(first.url, patch)).status, 410)

  const again = await send(bytes, ticket, session.access_token)
  assert.notEqual(again.url, first.url)
  assert.equal((await stateOf(sb, ticket)).state, 'completed')
  assert.equal((await detailsOf(sb, ticket.file_id)).versions.length, 1)
})

test('a right that is revoked aborts the ticket at once; the next part gets 403', async () => {
  const owner = await newUser()
  const peer = await newUser('Peer')
  const folder = await makeFolder(owner.sb, 'Shared')
  const { data: share } = must(await owner.sb.rpc('share_node', {
    node: folder, grantee: { email: peer.email }, level: 'edit', expires_at: null,
  }))
  const bytes = bytesOf('revoked', 14 * MIB)
  const ticket = await ticketFor(peer.sb, 'ours.bin', bytes.length, { folder_id: folder })
  const first = await send(bytes, ticket, peer.session.access_token, { stopAfter: 6 * MIB })

  must(await owner.sb.rpc('unshare_node', { share_id: share.id }))
  assert.equal((await stateOf(peer.sb, ticket)).state, 'aborted')
  const next = await refusedUpload(send(bytes, ticket, peer.session.access_token, { uploadUrl: first.url }))
  assert.equal(next.status, 403)
  assert.match(next.text, /narwhal\/(NO_TICKET|FORBIDDEN)/)
  assert.equal(must(await owner.sb.rpc('storage_usage', {})).data.reserved, 0)
})

test('of two clients on one URL one is told off, and one file arrives', async () => {
  const { sb, session } = await newUser()
  const bytes = bytesOf('two', 13 * MIB)
  const ticket = await ticketFor(sb, 'two.bin', bytes.length)
  const first = await send(bytes, ticket, session.access_token, { stopAfter: 6 * MIB })

  const both = await Promise.allSettled(
    [1, 2].map(() => send(bytes, ticket, session.access_token, { uploadUrl: first.url })),
  )
  const lost = both.filter((one) => one.status === 'rejected')
  for (const { reason } of lost) assert.ok([409, 423].includes(reason.originalResponse.getStatus()))
  assert.equal(lost.length, 1)
  assert.equal((await stateOf(sb, ticket)).state, 'completed')
  assert.equal((await detailsOf(sb, ticket.file_id)).versions.length, 1)
  const blob = must(await sb.storage.from(ticket.bucket).download(ticket.key)).data
  assert.equal(digest(Buffer.from(await blob.arrayBuffer())), digest(bytes))
})

test('a quota that shrinks meanwhile refuses the completion, and keeps nothing', async () => {
  const owner = await newUser()
  const boss = await admin()
  const bytes = bytesOf('shrunk', 7 * MIB)
  const ticket = await ticketFor(owner.sb, 'late.bin', bytes.length)
  const first = await send(bytes, ticket, owner.session.access_token, { stopAfter: 6 * MIB })
  must(await boss.rpc('set_user_quota', { user_id: owner.id, storage_limit: MIB }))

  const end = await refusedUpload(send(bytes, ticket, owner.session.access_token, { uploadUrl: first.url }))
  assert.match(end.text, /narwhal\/QUOTA_EXCEEDED/)
  assert.equal(end.status, 403)
  assert.ok((await owner.sb.storage.from(ticket.bucket).download(ticket.key)).error)
  assert.equal((await fetch(first.url, { method: 'HEAD', headers: { 'tus-resumable': '1.0.0' } })).status, 404)
  assert.equal(must(await owner.sb.rpc('storage_usage', {})).data.used, 0)
  // the reservation ends with the ticket at the latest; giving it up ends both now
  must(await owner.sb.rpc('abort_upload', { upload_id: ticket.upload_id }))
  assert.equal(must(await owner.sb.rpc('storage_usage', {})).data.reserved, 0)
  const details = await refused(
    owner.sb.rpc('begin_upload', { name: 'late.bin', size: bytes.length }), 'PT413', 'QUOTA_EXCEEDED',
  )
  assert.deepEqual([details.used, details.limit, details.requested], [0, MIB, bytes.length])
})

test("another user cannot continue somebody's upload", async () => {
  const owner = await newUser()
  const stranger = await newUser('Stranger')
  const bytes = bytesOf('mine', 7 * MIB)
  const ticket = await ticketFor(owner.sb, 'mine.bin', bytes.length)
  const first = await send(bytes, ticket, owner.session.access_token, { stopAfter: 6 * MIB })
  const theirs = await refusedUpload(send(bytes, ticket, stranger.session.access_token, { uploadUrl: first.url }))
  assert.equal(theirs.status, 403)
  await send(bytes, ticket, owner.session.access_token, { uploadUrl: first.url }) // control
})
