import assert from 'node:assert/strict'
import { test } from 'node:test'
import { beginUpload, must, newClient, newUser, uploadText, url } from './helpers.js'

const TEXT = 'The quick brown fox.'

test('a file goes in through ticket and Storage, under its Unicode name', async () => {
  const { sb, id } = await newUser()
  const ticket = await uploadText(sb, 'Résumé 简历.txt', TEXT)
  assert.match(ticket.key, /^[\x21-\x7e]+$/)

  const { data: file } = must(await sb.rpc('file_details', { file_id: ticket.file_id }))
  assert.equal(file.name, 'Résumé 简历.txt')
  assert.equal(file.owner_id, id)
  assert.equal(file.versions.length, 1)
  assert.equal(file.quota.used, TEXT.length)

  const { data: again, error } = await sb.storage.from(ticket.bucket).upload(ticket.key, TEXT)
  assert.equal(again, null)
  assert.equal(error.statusCode, '409')
})

test('Storage lists, gives and signs what its owner uploaded', async () => {
  const { sb } = await newUser()
  const ticket = await uploadText(sb, 'fox.txt', TEXT)
  const bucket = sb.storage.from(ticket.bucket)
  const folder = ticket.key.split('/').slice(0, -1).join('/')

  const { data: listed } = must(await bucket.list(folder))
  assert.deepEqual(listed.map((o) => o.name), [ticket.version_id])
  assert.equal(await must(await bucket.download(ticket.key)).data.text(), TEXT)

  const { data: signed } = must(await bucket.createSignedUrl(ticket.key, 60))
  const answer = await fetch(signed.signedUrl)
  assert.equal(await answer.text(), TEXT)
  const forged = await fetch(signed.signedUrl.slice(0, -4) + 'AAAA')
  assert.equal(forged.status, 400)
})

test('folders and conflicts answer with the error contract', async () => {
  const { sb } = await newUser()
  const { data: folder } = must(await sb.rpc('create_folder', { parent: null, name: 'Projects' }))
  await beginUpload(sb, 'plan.txt', 10, { folder_id: folder.id })

  const { data: page } = must(
    await sb.rpc('list_folder', { folder: folder.id, sort: 'name', page_size: 10, cursor: null }),
  )
  assert.deepEqual(page.items.map((i) => i.name), ['plan.txt'])
  assert.equal(page.next_cursor, null)

  const { error } = await sb.rpc('create_folder', { parent: null, name: 'PROJECTS' })
  assert.equal(error.code, 'PT409')
  const details = JSON.parse(error.details)
  assert.equal(details.error, 'CONFLICT_NAME')
  assert.equal(details.existing_id, folder.id)
})

test('Storage refuses what has no ticket', async () => {
  const { sb, id } = await newUser()
  const { error } = await sb.storage.from('files').upload(`${id}/some/thing`, TEXT)
  assert.equal(error.statusCode, '403')
  assert.match(error.message, /narwhal\/NO_TICKET/)
})

test('a stranger and anon see nothing of it', async () => {
  const owner = await newUser()
  const ticket = await uploadText(owner.sb, 'secret.txt', TEXT)
  const folder = ticket.key.split('/').slice(0, -1).join('/')

  const rowsOf = async (sb, table) => (await sb.from(table).select('id')).data ?? []
  const tables = ['nodes', 'file_versions', 'uploads', 'ingest_jobs', 'user_profiles']
  for (const table of tables) assert.ok((await rowsOf(owner.sb, table)).length > 0, table) // control
  assert.equal(must(await owner.sb.storage.from('files').list(folder)).data.length, 1) // control

  for (const other of [(await newUser('Stranger')).sb, newClient()]) {
    const own = must(await other.auth.getSession()).data.session?.user.id
    for (const table of tables) {
      assert.deepEqual((await rowsOf(other, table)).filter((row) => row.id !== own), [], table)
    }
    const bucket = other.storage.from('files')
    assert.deepEqual((await bucket.list(folder)).data ?? [], [])
    assert.ok((await bucket.download(ticket.key)).error)
    assert.ok((await bucket.createSignedUrl(ticket.key, 60)).error)
    const { error } = await other.rpc('file_details', { file_id: ticket.file_id })
    assert.match(error.code, /^PT40[14]$/)
  }
})

test('Realtime is named as missing, not left hanging', async () => {
  const answer = await fetch(`${url}/realtime/v1/websocket`)
  assert.equal(answer.status, 501)
})
