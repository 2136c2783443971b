// J9: public link.
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import {
  beginUpload, eventually, everything, linkHolder, look, makeFolder, must, newClient, newUser, refused, share, uploadText,
  whenRead, withGrant,
} from './helpers.js'

const TEXT = 'The plan for the public.'
const ALL = ['nodes', 'file_versions', 'pages', 'chunks', 'ingest_jobs', 'uploads', 'shares', 'share_links', 'owners']

const link = async (sb, node, more = {}) =>
  must(await sb.rpc('create_share_link', {
    node, level: 'view', password: null, expires_at: null, max_downloads: null, ...more,
  })).data
const open = (token, password = null) => newClient().rpc('open_share_link', { token, password })
const links = async (sb, node) => must(await sb.rpc('list_share_links', { node })).data.items
const revoke = (sb, id, hard = false) => sb.rpc('revoke_share_link', { id, hard })
const bytes = async (sb, { bucket, key }) => (await sb.storage.from(bucket).download(key)).data?.size ?? null
const sign = (sb, { bucket, key }, seconds = 60) => sb.storage.from(bucket).createSignedUrl(key, seconds)
const keyOf = async (sb, id) => must(await sb.rpc('file_details', { file_id: id })).data.key

async function world() {
  const owner = await newUser('Owner')
  const folder = await makeFolder(owner.sb, 'Public')
  const ticket = await uploadText(owner.sb, 'plan.txt', TEXT, { folder_id: folder })
  const secret = await uploadText(owner.sb, 'secret.txt', 'Not for the public.')
  return { owner, folder, ticket, secret, file: ticket.file_id }
}

test('whoever has token and password sees the subtree and nothing else', async () => {
  const { owner, folder, ticket, secret, file } = await world()
  const expires = new Date(Date.now() + 3600_000).toISOString()
  const made = await link(owner.sb, folder, { password: 's3cret', expires_at: expires, max_downloads: 5 })
  assert.ok(made.token.length >= 22) // 128 bits and more
  const { data: opened } = must(await open(made.token, 's3cret'))
  assert.equal(opened.node.id, folder)
  const minutes = (Date.parse(opened.expires_at) - Date.now()) / 60_000
  assert.ok(minutes > 14 && minutes <= 15.1, `${minutes}`)

  const holder = withGrant(opened.grant)
  const { data: nodes } = must(await holder.from('nodes').select('id,name'))
  assert.deepEqual(nodes.map((n) => n.name).sort(), ['Public', 'plan.txt'])
  assert.equal(await bytes(holder, ticket), TEXT.length)
  assert.equal(await bytes(holder, secret), null)
  const { data: signed } = must(await sign(holder, ticket))
  assert.equal(await (await fetch(signed.signedUrl)).text(), TEXT)
  assert.ok((await sign(holder, secret)).error)
  const { data: page } = must(await holder.rpc('list_folder', { folder, sort: 'name', page_size: 10, cursor: null }))
  assert.deepEqual(page.items.map((i) => i.id), [file])
  await refused(holder.rpc('file_details', { file_id: secret.file_id }), 'PT404', 'NOT_FOUND')

  const [listed] = await links(owner.sb, folder)
  assert.deepEqual([listed.id, listed.opens, listed.has_password, listed.state], [made.id, 1, true, 'active'])
  assert.equal(listed.downloads, 2) // the bytes read and the URL made
  const { data: rows } = must(await owner.sb.from('share_links').select('*'))
  assert.ok(!JSON.stringify([listed, rows]).includes(made.token)) // nothing but its hash is kept
  const history = await everything(owner.sb, 'link_history', { id: made.id })
  assert.deepEqual(history.map((h) => h.kind).sort(), ['created', 'downloaded', 'opened', 'signed'])
  must(await holder.rpc('begin_download', { file_id: file }))
  const audit = await everything(owner.sb, 'list_audit', { node: file, action: 'download' })
  assert.equal(audit.length, 3) // the bytes, the URL, and what was just asked
  for (const row of audit) assert.deepEqual([row.actor, row.ip], [`link:${made.id}`, '127.0.0.1'])
  const acts = await everything(owner.sb, 'list_audit', { node: folder })
  assert.deepEqual(acts.map((row) => row.action), ['open_link', 'create_link', 'create_folder'])
})

test('without a grant, or with a forged one, a visitor sees nothing', async () => {
  const { owner, folder, ticket } = await world()
  await link(owner.sb, folder)
  for (const sb of [newClient(), withGrant('forged'), withGrant('')]) {
    for (const table of ALL) assert.deepEqual((await sb.from(table).select('*')).data ?? [], [], table)
    assert.equal(await bytes(sb, ticket), null)
    assert.ok((await sign(sb, ticket)).error)
  }
})

test('a wrong password is 401, and too many of them are refused for a while', async () => {
  const { owner, file } = await world()
  const { token } = await link(owner.sb, file, { password: 's3cret' })
  for (const wrong of ['S3cret', '', null]) await refused(open(token, wrong), 'PT401', 'NOT_AUTHENTICATED')
  must(await open(token, 's3cret')) // control
  let last
  for (let i = 0; i < 100; i++) {
    ;({ error: last } = await open(token, `wrong ${i}`))
    if (last.code !== 'PT401') break
  }
  assert.equal(last.code, 'PT429')
  const details = JSON.parse(last.details)
  assert.equal(details.error, 'RATE_LIMITED')
  assert.ok(details.retry_after > 0)
  await refused(open(token, 's3cret'), 'PT429', 'RATE_LIMITED') // the right one does not help now
  await refused(open('no-such-token-'.repeat(3)), 'PT404', 'NOT_FOUND')
})

test('what has ended says GONE, and stays in the list', async () => {
  const { owner, folder, file, ticket } = await world()
  const brief = await link(owner.sb, file, { expires_at: new Date(Date.now() + 1500).toISOString() })
  const briefly = await linkHolder(brief.token)
  assert.ok(await look(briefly, file)) // control

  const soft = await link(owner.sb, file)
  const softly = await linkHolder(soft.token)
  must(await revoke(owner.sb, soft.id))
  assert.equal(await look(softly, file), null) // the grant is worth nothing from then on
  assert.equal((await refused(open(soft.token), 'PT410', 'GONE')).reason, 'revoked')

  const once = await link(owner.sb, file, { max_downloads: 1 })
  const only = await linkHolder(once.token)
  assert.equal(await bytes(only, ticket), TEXT.length)
  assert.equal(await bytes(only, ticket), null)
  assert.equal((await refused(open(once.token), 'PT410', 'GONE')).reason, 'used_up')

  await sleep(1600)
  assert.equal(await look(briefly, file), null)
  assert.equal((await refused(open(brief.token), 'PT410', 'GONE')).reason, 'expired')
  const states = Object.fromEntries((await links(owner.sb, file)).map((l) => [l.id, l.state]))
  assert.deepEqual(states, { [brief.id]: 'expired', [soft.id]: 'revoked', [once.id]: 'used_up' })

  const onFolder = await link(owner.sb, folder)
  const holder = await linkHolder(onFolder.token)
  must(await owner.sb.rpc('trash_nodes', { ids: [folder] }))
  assert.equal(await look(holder, file), null)
  assert.equal((await refused(open(onFolder.token), 'PT410', 'GONE')).reason, 'trashed')
})

test('of many who read at once only as many as were meant get the bytes', async () => {
  const { owner, file, ticket } = await world()
  const { token } = await link(owner.sb, file, { max_downloads: 3 })
  const holder = await linkHolder(token)
  const sizes = await Promise.all(Array.from({ length: 8 }, () => bytes(holder, ticket)))
  assert.equal(sizes.filter((size) => size === TEXT.length).length, 3)
  const [{ downloads, state }] = await links(owner.sb, file)
  assert.deepEqual([downloads, state], [3, 'used_up'])
})

test('a hard revoke kills a signed URL that was working', async () => {
  const { owner, folder, ticket, file } = await world()
  await whenRead(owner.sb, file)
  const { id, token } = await link(owner.sb, folder)
  const holder = await linkHolder(token)
  const { data: theirs } = must(await sign(holder, ticket, 3600))
  const { data: own } = must(await sign(owner.sb, ticket, 3600))
  const status = async (url) => (await fetch(url)).status
  assert.equal(await status(theirs.signedUrl), 200)

  const { data: revoking } = must(await revoke(owner.sb, id, true))
  assert.ok(revoking.revoking_at)
  await refused(open(token), 'PT410', 'GONE') // from the commit on
  assert.equal(await look(holder, file), null)
  const state = async () => (await links(owner.sb, folder))[0]
  const revoked = await eventually(async () => {
    const now = await state()
    assert.ok(['revoking', 'revoked'].includes(now.state))
    return now.state === 'revoked' && now
  }, 60, 'the object moves')
  assert.ok(Date.parse(revoked.revoked_at) >= Date.parse(revoking.revoking_at))
  assert.ok(await status(theirs.signedUrl) >= 400)
  assert.ok(await status(own.signedUrl) >= 400) // every URL of that object
  const key = await keyOf(owner.sb, file)
  assert.notEqual(key, ticket.key)
  assert.equal(await bytes(owner.sb, { bucket: ticket.bucket, key }), TEXT.length) // nothing is lost
})

test('a soft revoke leaves a signed URL to its own time', async () => {
  const { owner, ticket, file } = await world()
  const { id, token } = await link(owner.sb, file)
  const holder = await linkHolder(token)
  const { data: signed } = must(await sign(holder, ticket, 2))
  const { data: revoked } = must(await revoke(owner.sb, id))
  assert.equal(revoked.revoked_at, revoked.revoking_at)
  assert.equal((await fetch(signed.signedUrl)).status, 200)
  assert.ok((await sign(holder, ticket)).error) // no new one
  await sleep(2100)
  assert.ok((await fetch(signed.signedUrl)).status >= 400)
})

test('a link only lets look, whatever is tried with it', async () => {
  const { owner, folder, file } = await world()
  const { token } = await link(owner.sb, folder, { level: 'edit' })
  const holder = await linkHolder(token)
  const tries = [
    ['begin_upload', { name: 'x.txt', folder_id: folder, size: 1 }],
    ['create_folder', { parent: folder, name: 'x' }],
    ['rename_node', { id: file, name: 'x.txt' }],
    ['trash_nodes', { ids: [file] }],
    ['share_node', { node: file, grantee: { email: 'me@example.com' }, level: 'view' }],
  ]
  for (const [name, args] of tries) {
    const { error } = await holder.rpc(name, args)
    const { error: stable } = JSON.parse(error.details)
    // what is only for people with an account says so; never anything else
    assert.ok(['PT403 FORBIDDEN', 'PT401 NOT_AUTHENTICATED'].includes(`${error.code} ${stable}`), `${name} ${stable}`)
  }
  await refused(holder.rpc(...tries[0]), 'PT403', 'FORBIDDEN')

  // somebody who is signed in has the level of the link
  const peer = await newUser('Peer')
  const view = await link(owner.sb, folder)
  const signedIn = async (t) => {
    const { data } = must(await peer.sb.rpc('open_share_link', { token: t, password: null }))
    const sb = withGrant(data.grant)
    must(await sb.auth.setSession(peer.session))
    return sb
  }
  const viewer = await signedIn(view.token)
  assert.ok(await look(viewer, file))
  await refused(viewer.rpc(...tries[0]), 'PT403', 'FORBIDDEN')
  const editor = await signedIn(token)
  must(await editor.rpc(...tries[0])) // control
})

test('a link is worth what its maker may still give', async () => {
  const { owner, folder, file } = await world()
  const peer = await newUser('Peer')
  const { id } = await share(owner.sb, folder, peer.email, 'manage')
  const { token } = await link(peer.sb, file)
  const holder = await linkHolder(token)
  assert.ok(await look(holder, file)) // control
  must(await owner.sb.rpc('unshare_node', { share_id: id }))
  assert.equal(await look(holder, file), null)
  await refused(open(token), 'PT410', 'GONE')
})

test('overwriting the file keeps the link', async () => {
  const { owner, ticket, file } = await world()
  await whenRead(owner.sb, file)
  const { token } = await link(owner.sb, file)
  const next = 'The second plan for the public.'
  const version = await beginUpload(owner.sb, null, next.length, {
    file_id: file, on_conflict: 'version', base_version: ticket.version_id,
  })
  must(await owner.sb.storage.from(version.bucket).upload(version.key, new Blob([next], { type: 'text/plain' }), { contentType: 'text/plain' }))
  await eventually(async () =>
    must(await owner.sb.from('nodes').select('head_version_id').eq('id', file).single()).data.head_version_id === version.version_id, 30, 'v2')
  const holder = await linkHolder(token)
  assert.ok(await look(holder, file))
  assert.equal(await bytes(holder, version), next.length)
})

test('only managers make and see links', async () => {
  const { owner, file } = await world()
  const [peer, stranger] = [await newUser('Peer'), await newUser('Stranger')]
  const { id } = await link(owner.sb, file)
  await share(owner.sb, file, peer.email, 'edit')
  const args = { node: file, level: 'view' }
  await refused(peer.sb.rpc('create_share_link', args), 'PT403', 'FORBIDDEN')
  await refused(peer.sb.rpc('list_share_links', { node: file }), 'PT403', 'FORBIDDEN')
  for (const [name, more] of [['create_share_link', args], ['list_share_links', { node: file }], ['revoke_share_link', { id, hard: true }]]) {
    await refused(stranger.sb.rpc(name, more), 'PT404', 'NOT_FOUND')
  }
  for (const sb of [peer.sb, stranger.sb]) assert.deepEqual(must(await sb.from('share_links').select('id')).data, [])
  const wrong = await refused(owner.sb.rpc('create_share_link', { node: file, level: 'manage' }), 'PT422', 'INVALID_ARGUMENT')
  assert.equal(wrong.field, 'level')
})
