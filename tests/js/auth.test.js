import assert from 'node:assert/strict'
import { test } from 'node:test'
import { must, newClient, newUser, password } from './helpers.js'

test('sign-up makes a profile, and signing in opens a session of 15 minutes', async () => {
  const { sb, email, id } = await newUser('Ada Lovelace')
  const { data: me } = must(
    await sb.from('user_profiles').select('id,email,full_name,role,storage_used').single(),
  )
  assert.deepEqual(me, { id, email, full_name: 'Ada Lovelace', role: 'user', storage_used: 0 })

  const { data } = must(await newClient().auth.signInWithPassword({ email, password }))
  assert.equal(data.session.expires_in, 900)
  assert.equal(data.user.id, id)
})

test('a wrong password is refused with its code', async () => {
  const { email } = await newUser()
  const { error } = await newClient().auth.signInWithPassword({ email, password: 'not this one' })
  assert.equal(error.code, 'invalid_credentials')
})

test('refreshing rotates the token, and the new one works', async () => {
  const { sb, session } = await newUser()
  const { data } = must(await sb.auth.refreshSession())
  assert.notEqual(data.session.refresh_token, session.refresh_token)
  assert.equal(must(await sb.auth.getUser()).data.user.id, session.user.id)
})

test('a signed-out session is gone', async () => {
  const { sb, session } = await newUser()
  assert.ok(must(await sb.auth.getUser(session.access_token)).data.user) // control
  must(await sb.auth.signOut())
  const { error } = await newClient().auth.getUser(session.access_token)
  assert.ok(error)
})
