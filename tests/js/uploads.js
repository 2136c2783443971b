// Resumable uploads with tus-js-client. As a program it uploads random bytes and tells its progress:
//   node uploads.js TOKEN SEED TICKET     prints the upload URL, then the bytes accepted
import { createHash, createHmac } from 'node:crypto'
import { readdir, readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import * as tus from 'tus-js-client'
import { anonKey, url } from './helpers.js'

export const MIB = 2 ** 20

/** As many bytes as asked, the same for the same seed. */
export function bytesOf(seed, size) {
  const block = Buffer.concat(
    Array.from({ length: 2048 }, (_, i) => createHash('sha256').update(`${seed} ${i}`).digest()),
  )
  const bytes = Buffer.alloc(size)
  for (let at = 0, n = 0; at < size; at += block.length, n++) {
    block.writeUInt32LE(n, 0)
    block.copy(bytes, at)
  }
  return bytes
}

export const digest = (data) => createHash('sha256').update(data).digest('hex')

/** Start an upload; resolves when it is done, or, with stopAfter, once it was interrupted. */
export function send(bytes, ticket, token, { stopAfter, uploadUrl, told } = {}) {
  const seen = { requests: [], offset: undefined, url: uploadUrl }
  return new Promise((resolve, reject) => {
    const upload = new tus.Upload(bytes, {
      endpoint: `${url}/storage/v1/upload/resumable`,
      uploadUrl,
      chunkSize: ticket.chunk_size,
      retryDelays: [],
      headers: { authorization: `Bearer ${token}`, apikey: anonKey },
      metadata: { bucketName: ticket.bucket, objectName: ticket.key, contentType: ticket.mime },
      onBeforeRequest: (request) => { seen.requests.push(request.getMethod()) },
      onAfterResponse: (request, response) => {
        if (request.getMethod() === 'HEAD') seen.offset = Number(response.getHeader('upload-offset'))
      },
      onUploadUrlAvailable: () => {
        seen.url = upload.url
        told?.('url', upload.url)
      },
      onChunkComplete: async (size, accepted) => {
        seen.accepted = accepted
        told?.('accepted', accepted)
        if (stopAfter && accepted >= stopAfter) {
          await upload.abort()
          resolve(seen)
        }
      },
      onSuccess: () => resolve(seen),
      onError: (error) => {
        // refused before its whole body was sent, it would keep the process waiting
        error.originalRequest?.getUnderlyingObject()?.destroy()
        reject(error)
      },
    })
    upload.start()
  })
}

/** The HTTP status and the text that an upload must be refused with. */
export async function refusedUpload(upload) {
  try {
    await upload
  } catch (error) {
    if (!error.originalResponse) throw error
    return { status: error.originalResponse.getStatus(), text: error.originalResponse.getBody() }
  }
  throw new Error('the upload was not refused')
}

/** The token of a session, as it would be after its time. */
export function expired(token) {
  const [header, payload] = token.split('.')
  const claims = JSON.parse(Buffer.from(payload, 'base64url').toString())
  claims.exp = Math.floor(Date.now() / 1000) - 60
  const body = `${header}.${Buffer.from(JSON.stringify(claims)).toString('base64url')}`
  return `${body}.${createHmac('sha256', process.env.JWT_SECRET).update(body).digest('base64url')}`
}

/** Let an upload URL expire now: nothing but time does it otherwise. */
export async function expireUpload(uploadUrl) {
  const place = Buffer.from(uploadUrl.split('/').pop(), 'base64url').toString()
  const folder = join(process.env.STACK_HOME, 'storage', 'tus')
  const name = (await readdir(folder)).find((n) => n === `${place.split('/').pop()}.json`)
  const path = join(folder, name)
  const upload = JSON.parse(await readFile(path, 'utf8'))
  await writeFile(path, JSON.stringify({ ...upload, expires_at: Date.now() / 1000 - 1 }))
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const [token, seed, ticket] = process.argv.slice(2)
  const { size, ...more } = JSON.parse(ticket)
  await send(bytesOf(seed, size), more, token, { told: (what, value) => console.log(what, value) })
}
