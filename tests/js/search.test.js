import assert from 'node:assert/strict'
import { before, test } from 'node:test'
import { must, newClient, newUser, uploadText, whenRead } from './helpers.js'

const TEXT = `The lighthouse keeper writes the weather into a log every evening.

Invoice ZX-4471 was paid in March. The turbine reached an efficiency of ninety percent.`

let owner, stranger, ticket

before(async () => {
  owner = await newUser()
  stranger = await newUser('Stranger')
  ticket = await uploadText(owner.sb, 'keeper.txt', TEXT)
  assert.equal((await whenRead(owner.sb, ticket.file_id)).status, 'ready')
})

const ask = (sb, body) => sb.functions.invoke('ai/search', { body })

test('a question finds the passage by keyword, by meaning and by both', async () => {
  const questions = { keyword: 'ZX-4471', semantic: 'who guards the coast', hybrid: 'turbine efficiency' }
  for (const [mode, query] of Object.entries(questions)) {
    const { data } = must(await ask(owner.sb, { query, mode, top_k: 3 }))
    assert.equal(data.hits[0]?.file_id, ticket.file_id, mode)
    assert.equal(data.hits[0].name, 'keeper.txt')
    assert.equal(data.degraded, false, mode)
  }
})

test('in two steps: ai/embed, then hybrid_search', async () => {
  const query = 'turbine efficiency'
  const { data: vector } = must(
    await owner.sb.functions.invoke('ai/embed', { body: { text: query, space: 'active' } }),
  )
  assert.equal(vector.embedding.length, vector.dimension)
  const { data } = must(
    await owner.sb.rpc('hybrid_search', {
      query, embedding: vector.embedding, space: vector.space, filters: { types: ['txt'] },
      top_k: 8, candidates: 50, explain: true,
    }),
  )
  assert.equal(data.hits[0].file_id, ticket.file_id)
  assert.ok('fused' in data.hits[0].parts)
})

test('the second user finds nothing, in any mode', async () => {
  for (const mode of ['hybrid', 'keyword', 'semantic']) {
    const { data } = must(await ask(stranger.sb, { query: 'turbine efficiency', mode }))
    assert.deepEqual(data.hits, [], mode)
  }
  const { data: chunks } = must(await stranger.sb.from('chunks').select('id'))
  assert.deepEqual(chunks, [])
  assert.ok(must(await owner.sb.from('chunks').select('id')).data.length > 0) // control
})

test('errors carry the four keys and their status', async () => {
  const { error } = await ask(owner.sb, { query: 'turbine', nonsense: true })
  assert.equal(error.context.status, 422)
  const body = await error.context.json()
  assert.deepEqual(Object.keys(body).sort(), ['code', 'details', 'hint', 'message'])
  assert.equal(body.code, 'PT422')
  assert.deepEqual(JSON.parse(body.details), { error: 'INVALID_ARGUMENT', field: 'nonsense' })

  const short = (await ask(owner.sb, { query: 'ab' })).error
  assert.equal(short.context.status, 422)

  const anonymous = (await ask(newClient(), { query: 'turbine' })).error
  assert.equal(anonymous.context.status, 401)
})

test('ai/health says that everything works, to anybody', async () => {
  const { data } = must(await newClient().functions.invoke('ai/health'))
  assert.equal(data.status, 'healthy')
  assert.ok(Date.parse(data.timestamp) > 0)
})
