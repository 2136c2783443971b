import assert from 'node:assert/strict'
import { createHash, randomBytes } from 'node:crypto'
import { test } from 'node:test'
import * as tus from 'tus-js-client'
import { anonKey, beginUpload, must, newUser, url } from './helpers.js'

const MIB = 2 ** 20

/** Start an upload; resolves when it is done, or, with stopAfter, once it was interrupted. */
function send(bytes, ticket, token, { stopAfter, uploadUrl } = {}) {
  const seen = { requests: [], url: uploadUrl }
  return new Promise((resolve, reject) => {
    const upload = new tus.Upload(bytes, {
      endpoint: `${url}/storage/v1/upload/resumable`,
      uploadUrl,
      chunkSize: ticket.chunk_size,
      retryDelays: [],
      headers: { authorization: `Bearer ${token}`, apikey: anonKey },
      metadata: { bucketName: ticket.bucket, objectName: ticket.key, contentType: ticket.mime },
      onBeforeRequest: (request) => { seen.requests.push(request.getMethod()) },
      onUploadUrlAvailable: () => { seen.url = upload.url },
      onChunkComplete: async (size, accepted) => {
        seen.accepted = accepted
        if (stopAfter && accepted >= stopAfter) {
          await upload.abort()
          resolve(seen)
        }
      },
      onSuccess: () => resolve(seen),
      onError: reject,
    })
    upload.start()
  })
}

test('a large upload is interrupted, resumed where it stopped, and arrives whole', async () => {
  const { sb, session } = await newUser()
  const bytes = randomBytes(14 * MIB)
  const ticket = await beginUpload(sb, 'big.bin', bytes.length, { mime: 'application/octet-stream' })
  assert.equal(ticket.mode, 'tus')
  assert.equal(ticket.chunk_size, 6 * MIB)

  const first = await send(bytes, ticket, session.access_token, { stopAfter: 6 * MIB })
  assert.equal(first.accepted, 6 * MIB)
  const { data: open } = must(await sb.from('uploads').select('state').eq('id', ticket.upload_id).single())
  assert.notEqual(open.state, 'completed')

  // a new client, with nothing but the URL and a fresh token
  const { data } = must(await sb.auth.refreshSession())
  const second = await send(bytes, ticket, data.session.access_token, { uploadUrl: first.url })
  assert.deepEqual(second.requests, ['HEAD', 'PATCH', 'PATCH']) // 6 MiB and 2 MiB were left

  const { data: upload } = must(
    await sb.from('uploads').select('state,bytes_received').eq('id', ticket.upload_id).single(),
  )
  assert.deepEqual(upload, { state: 'completed', bytes_received: bytes.length })
  const blob = must(await sb.storage.from(ticket.bucket).download(ticket.key)).data
  const digest = (data) => createHash('sha256').update(data).digest('hex')
  assert.equal(digest(Buffer.from(await blob.arrayBuffer())), digest(bytes))
  assert.equal(must(await sb.rpc('file_details', { file_id: ticket.file_id })).data.versions.length, 1)
})

test("another user cannot continue somebody's upload", async () => {
  const owner = await newUser()
  const stranger = await newUser('Stranger')
  const bytes = randomBytes(7 * MIB)
  const ticket = await beginUpload(owner.sb, 'mine.bin', bytes.length, { mime: 'application/octet-stream' })
  const first = await send(bytes, ticket, owner.session.access_token, { stopAfter: 6 * MIB })

  await assert.rejects(
    send(bytes, ticket, stranger.session.access_token, { uploadUrl: first.url }),
    (error) => error.originalResponse.getStatus() === 403,
  )
  await send(bytes, ticket, owner.session.access_token, { uploadUrl: first.url }) // control
})
