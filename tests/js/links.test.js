import assert from 'node:assert/strict'
import { before, test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { createClient } from '@supabase/supabase-js'
import ws from 'ws'
import { anonKey, beginUpload, must, newClient, newUser, uploadText, url, whenRead } from './helpers.js'

const TEXT = 'The launch budget is four million, most of it for the turbine.'

let owner, folder, file

before(async () => {
  owner = await newUser('Link Owner')
  folder = must(await owner.sb.rpc('create_folder', { parent: null, name: 'Open to all' })).data
  file = await uploadText(owner.sb, 'budget.txt', TEXT, { folder_id: folder.id })
  assert.equal((await whenRead(owner.sb, file.file_id)).status, 'ready')
})

const makeLink = async (more = {}) =>
  must(await owner.sb.rpc('create_share_link', { node: folder.id, level: 'view', ...more })).data

const open = async (link, password = null, sb = newClient()) =>
  must(await sb.rpc('open_share_link', { token: link.token, password })).data

const withHeaders = (headers) =>
  createClient(url, anonKey, {
    auth: { persistSession: false, autoRefreshToken: false }, realtime: { transport: ws }, global: { headers },
  })

const holder = async (link, password) =>
  withHeaders({ 'x-share-grant': (await open(link, password)).grant })

test('a link opens its subtree to an anonymous holder, in REST, search and Storage', async () => {
  const opened = await open(await makeLink())
  assert.equal(opened.node.id, folder.id)
  assert.equal(opened.level, 'view')
  const anon = withHeaders({ 'x-share-grant': opened.grant })

  const { data: rows } = must(await anon.from('nodes').select('id,name'))
  assert.deepEqual(rows.map((row) => row.name).sort(), ['Open to all', 'budget.txt'])
  const { data: page } = must(await anon.rpc('list_folder', { folder: folder.id }))
  assert.deepEqual(page.items.map((item) => item.id), [file.file_id])
  const { data: details } = must(await anon.rpc('file_details', { file_id: file.file_id }))
  assert.equal(details.level, 'view')
  assert.equal(details.quota, null)
  const { data: found } = must(await anon.rpc('hybrid_search', { query: 'launch' }))
  assert.deepEqual(found.hits.map((hit) => hit.file_id), [file.file_id])

  const bucket = anon.storage.from('files')
  assert.equal(await must(await bucket.download(details.key)).data.text(), TEXT)
  const { data: signed } = must(await bucket.createSignedUrl(details.key, 60))
  assert.equal(await (await fetch(signed.signedUrl)).text(), TEXT)
  assert.equal(must(await bucket.info(details.key)).data.size, TEXT.length)
})

test('a signed-in holder of an edit link uploads into the folder, whose owner pays', async () => {
  const guest = await newUser('Guest')
  const opened = await open(await makeLink({ level: 'edit' }), null, guest.sb)
  assert.equal(opened.level, 'edit')
  const sb = withHeaders({ 'x-share-grant': opened.grant, authorization: `Bearer ${guest.session.access_token}` })
  const ticket = await beginUpload(sb, 'guest.txt', 5, { folder_id: folder.id })
  must(await sb.storage.from('files').upload(ticket.key, new Blob(['hello']), { contentType: 'text/plain' }))
  const { data } = must(await owner.sb.rpc('file_details', { file_id: ticket.file_id }))
  assert.deepEqual([data.owner_id, data.created_by], [owner.id, guest.id])
  must(await owner.sb.rpc('trash_nodes', { ids: [ticket.file_id] }))
})

test('a download is one, in however many parts; of many at once the last one is won once', async () => {
  const link = await makeLink({ max_downloads: 2 })
  const { grant } = await open(link)
  const read = (range) =>
    fetch(`${url}/storage/v1/object/authenticated/files/${file.key}`, {
      headers: { authorization: `Bearer ${anonKey}`, 'x-share-grant': grant, ...(range && { range }) },
    })
  const head = await read('bytes=0-9')
  assert.equal(head.status, 206)
  const rest = await read('bytes=10-')
  assert.equal(await head.text() + (await rest.text()), TEXT)
  const { data } = must(await owner.sb.rpc('list_share_links', { node: folder.id }))
  assert.equal(data.items.find((item) => item.id === link.id).downloads, 1)

  const answers = await Promise.all(Array.from({ length: 10 }, () => read()))
  assert.equal(answers.filter((answer) => answer.status === 200).length, 1)
  await Promise.all(answers.map((answer) => answer.text()))
})

test('a hard revoke kills signed URLs within seconds, and the owner notices nothing', async () => {
  const report = await uploadText(owner.sb, 'report.txt', 'The turbine report.', { folder_id: folder.id })
  await whenRead(owner.sb, report.file_id)
  const link = await makeLink()
  const anon = await holder(link)
  const signed = []
  for (const key of [file.key, report.key]) {
    signed.push(must(await anon.storage.from('files').createSignedUrl(key, 3600)).data.signedUrl)
  }
  for (const url of signed) assert.equal((await fetch(url)).status, 200) // they work

  const { data: revoking } = must(await owner.sb.rpc('revoke_share_link', { id: link.id, hard: true }))
  assert.equal(revoking.state, 'revoking')
  assert.equal(revoking.revoked_at, null)
  const started = Date.now()
  assert.ok((await anon.storage.from('files').download(file.key)).error) // at once

  let listed
  do {
    assert.ok(Date.now() - started < 60_000, 'the revocation takes more than 60 s')
    await sleep(200)
    const { data } = must(await owner.sb.rpc('list_share_links', { node: folder.id }))
    listed = data.items.find((item) => item.id === link.id)
  } while (!listed.revoked_at)
  assert.equal(listed.state, 'revoked')
  for (const url of signed) assert.equal((await fetch(url)).status, 400)

  const { data: details } = must(await owner.sb.rpc('file_details', { file_id: file.file_id }))
  assert.notEqual(details.key, file.key)
  assert.equal(details.versions.length, 1)
  assert.equal(await must(await owner.sb.storage.from('files').download(details.key)).data.text(), TEXT)
  assert.ok((await owner.sb.storage.from('files').download(file.key)).error)
  const { data: found } = must(await owner.sb.rpc('hybrid_search', { query: 'budget' }))
  assert.equal(found.hits[0].file_id, file.file_id)
  file.key = details.key
})
