// What every test needs: clients of the stack that test_js.py started, and people to act as.
import assert from 'node:assert/strict'
import { randomUUID } from 'node:crypto'
import { setTimeout as sleep } from 'node:timers/promises'
import { createClient } from '@supabase/supabase-js'
import ws from 'ws'

export const url = process.env.SUPABASE_URL
export const anonKey = process.env.SUPABASE_ANON_KEY
export const password = 'correct horse battery staple'

// Node 20 has no WebSocket, and createClient refuses to work without one
const options = { auth: { persistSession: false, autoRefreshToken: false }, realtime: { transport: ws } }

export const newClient = (key = anonKey) => createClient(url, key, options)

/** Sign somebody up; their client is signed in. */
export async function newUser(name = 'Test Owner') {
  const sb = newClient()
  const email = `${randomUUID()}@example.com`
  const { data } = must(await sb.auth.signUp({ email, password, options: { data: { full_name: name } } }))
  return { sb, email, id: data.user.id, session: data.session }
}

/** The answer itself, when it is not an error. */
export function must(answer) {
  if (answer.error) throw answer.error
  return answer
}

/** The details of an error that must come, under exactly this HTTP code and this stable name. */
export async function refused(call, code, name) {
  const { data, error } = await call
  assert.ok(error, `expected ${name}, got ${JSON.stringify(data)}`)
  assert.equal(`${error.code} ${error.message}`, `${code} ${error.message}`)
  assert.ok(error.message.length > 0)
  const details = JSON.parse(error.details)
  assert.equal(details.error, name, error.details)
  return details
}

/** Somebody with the role admin; test_js.py makes the account. */
export async function admin() {
  const sb = newClient()
  must(await sb.auth.signInWithPassword({ email: process.env.ADMIN_EMAIL, password }))
  return sb
}

/** Every item of a list RPC, page by page. */
export async function everything(sb, name, args = {}) {
  const items = []
  for (let cursor = null; ;) {
    const { data } = must(await sb.rpc(name, { ...args, cursor }))
    items.push(...data.items)
    if ((cursor = data.next_cursor) === null) return items
  }
}

/** Make a folder; its id comes back. */
export async function makeFolder(sb, name, parent = null) {
  return must(await sb.rpc('create_folder', { parent, name })).data.id
}

/** What somebody sees of a node; null when it does not exist for them. */
export async function look(sb, id) {
  return must(await sb.from('nodes').select('id,name,parent_id,status,trashed_at').eq('id', id).maybeSingle()).data
}

/** Ask for a ticket to upload some bytes. */
export async function beginUpload(sb, name, size, more = {}) {
  const body = { name, folder_id: null, size, mime: 'text/plain', sha256: null, on_conflict: 'fail', ...more }
  return must(await sb.rpc('begin_upload', body)).data
}

/** Upload a text through ticket and Storage; the ticket comes back. */
export async function uploadText(sb, name, text, more = {}) {
  const blob = new Blob([text], { type: 'text/plain' })
  const ticket = await beginUpload(sb, name, blob.size, more)
  must(await sb.storage.from(ticket.bucket).upload(ticket.key, blob, { contentType: 'text/plain' }))
  return ticket
}

/** Wait until the worker is through with a file; its details come back. */
export async function whenRead(sb, fileId, seconds = 90) {
  for (const end = Date.now() + seconds * 1000; Date.now() < end; await sleep(200)) {
    const { data } = must(await sb.rpc('file_details', { file_id: fileId }))
    if (['ready', 'failed', 'skipped', 'rejected'].includes(data.status)) return data
  }
  throw new Error(`file ${fileId} was not read in ${seconds} s`)
}

/** Ask in words, without a model: the ids of the files that are found, best first. */
export async function found(sb, query, filters = {}) {
  const { data } = must(await sb.rpc('hybrid_search', { query, filters, top_k: 20 }))
  return data.hits.map((hit) => hit.file_id)
}

/** Share something with somebody; the share comes back. */
export async function share(sb, node, email, level = 'view', expiresAt = null) {
  return must(await sb.rpc('share_node', { node, grantee: { email }, level, expires_at: expiresAt })).data
}

/** Try until an attempt says yes, for so many seconds. */
export async function eventually(attempt, seconds, what) {
  for (const end = Date.now() + seconds * 1000; Date.now() < end; await sleep(200)) {
    const answer = await attempt()
    if (answer) return answer
  }
  throw new Error(`not in ${seconds} s: ${what}`)
}

/** A client without an account that has opened a link. */
export async function linkHolder(token, linkPassword = null) {
  const { data } = must(await newClient().rpc('open_share_link', { token, password: linkPassword }))
  return withGrant(data.grant)
}

/** A client without an account that sends a grant. */
export const withGrant = (grant) =>
  createClient(url, anonKey, { ...options, global: { headers: { 'x-share-grant': grant } } })
