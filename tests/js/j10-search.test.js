// J10: hybrid search with filters and explain.
import assert from 'node:assert/strict'
import { before, test } from 'node:test'
import { linkHolder, makeFolder, must, newClient, newUser, refused, share, uploadText, whenRead } from './helpers.js'

const TEXTS = {
  'turbine.txt': 'The turbine reached an efficiency of ninety percent in March. Invoice ZX-4471 was paid.',
  'harbour.txt': 'The harbour master closes the gates at night. Part INV_2024/17 of the turbine was replaced.',
  'leuchtturm.txt': 'Der Leuchtturmwärter schreibt jeden Abend das Wetter in sein Tagebuch und zündet die Lampe an.',
  '白海豚.txt': '白海豚在清晨靠近港口,研究人员记录了它们的叫声。灯塔的守护者每天晚上写下天气。',
  'garden.md': '# Garden\n\nTomatoes want sun, water and patience; the log of the year lists every frost.',
}

let owner, peer, stranger, folder, files

before(async () => {
  ;[owner, peer, stranger] = [await newUser(), await newUser('Peer'), await newUser('Stranger')]
  folder = await makeFolder(owner.sb, 'Works')
  files = {}
  for (const [name, text] of Object.entries(TEXTS)) {
    const into = ['turbine.txt', 'harbour.txt'].includes(name) ? folder : null
    files[name] = (await uploadText(owner.sb, name, text, { folder_id: into })).file_id
  }
  for (const id of Object.values(files)) assert.equal((await whenRead(owner.sb, id)).status, 'ready')
})

const embed = async (sb, text) =>
  must(await sb.functions.invoke('ai/embed', { body: { text, space: 'active' } })).data
const search = async (sb, query, more = {}) => must(await sb.rpc('hybrid_search', { query, ...more })).data
const both = async (sb, query, more = {}) => {
  const { embedding, space } = await embed(sb, query)
  return search(sb, query, { embedding, space, ...more })
}
const names = ({ hits }) => hits.map((hit) => hit.name)

test('a hit tells how it was found, and the answer how fresh it is', async () => {
  const answer = await both(owner.sb, 'turbine efficiency', { top_k: 8, candidates: 50, explain: true })
  const [hit] = answer.hits
  assert.equal(hit.file_id, files['turbine.txt'])
  assert.deepEqual([hit.parts.vector_rank, hit.parts.keyword_rank], [1, 1])
  assert.ok(hit.parts.fused > 0 && hit.score > 0)
  assert.equal(hit.path, '/Works/turbine.txt')
  assert.equal(hit.is_head, true)
  assert.ok(hit.snippet.includes('turbine'))
  for (const [start, end] of hit.highlights) assert.match(hit.snippet.slice(start, end), /^(turbine|efficiency)$/i)
  assert.deepEqual([answer.degraded, answer.pending_files, answer.space], [false, 0, 'minilm-l6-v2'])
  assert.equal(typeof answer.index_lag, 'number')
  assert.equal(answer.explain.plan, 'exact')
  assert.deepEqual(hit.access, [{ via: 'owner', level: 'owner' }])
})

test('a longer list begins with the shorter one', async () => {
  const long = await both(owner.sb, 'the log of the weather', { top_k: 20 })
  assert.ok(long.hits.length >= 3)
  for (let top_k = 1; top_k < long.hits.length; top_k++) {
    const short = await both(owner.sb, 'the log of the weather', { top_k })
    assert.deepEqual(short.hits.map((h) => h.chunk_id), long.hits.slice(0, top_k).map((h) => h.chunk_id))
  }
})

test('codes are found as they are written, and conditions hold', async () => {
  assert.deepEqual(names(await search(owner.sb, 'ZX-4471')), ['turbine.txt'])
  assert.deepEqual(names(await search(owner.sb, 'INV_2024/17')), ['harbour.txt'])
  assert.deepEqual(names(await both(owner.sb, '"efficiency of ninety"')), ['turbine.txt'])
  assert.ok(!names(await both(owner.sb, 'turbine -harbour')).includes('harbour.txt'))
  assert.deepEqual(names(await search(owner.sb, 'effic*')), ['turbine.txt'])
})

test('German and Chinese documents are found', async () => {
  assert.equal(names(await both(owner.sb, 'Wetter im Tagebuch des Leuchtturmwärters'))[0], 'leuchtturm.txt')
  assert.deepEqual(names(await search(owner.sb, 'Leuchtturmwärtern')), ['leuchtturm.txt'])
  assert.equal(names(await both(owner.sb, '白海豚的叫声'))[0], '白海豚.txt')
  assert.deepEqual(names(await search(owner.sb, '守护者')), ['白海豚.txt'])
})

test('without a vector it searches by keyword and says so', async () => {
  const answer = await search(owner.sb, 'turbine efficiency')
  assert.equal(answer.degraded, true)
  assert.equal(answer.hits[0].file_id, files['turbine.txt'])
  assert.equal(answer.hits[0].parts.vector_rank, null)
})

test('filters narrow, and explain counts what they leave', async () => {
  must(await owner.sb.rpc('tag_nodes', { ids: [files['harbour.txt']], add: ['q3'], remove: [] }))
  const within = async (filters) => names(await both(owner.sb, 'the turbine', { filters, top_k: 20 })).sort()
  assert.deepEqual(await within({ folder_id: folder }), ['harbour.txt', 'turbine.txt'])
  assert.deepEqual(await within({ types: ['md'] }), ['garden.md'])
  assert.deepEqual(await within({ tags: ['q3'] }), ['harbour.txt'])
  assert.deepEqual(await within({ file_ids: [files['garden.md']] }), ['garden.md'])
  assert.deepEqual(await within({ date_from: '2999-01-01' }), [])
  assert.deepEqual(await within({ languages: ['de'] }), ['leuchtturm.txt'])
  assert.deepEqual(
    await within({ folder_id: folder, types: ['txt'], tags: ['q3'], date_from: '2026-01-01', file_ids: null }),
    ['harbour.txt'],
  )
  const { explain } = await both(owner.sb, 'the turbine', { filters: { folder_id: folder }, explain: true })
  assert.equal(explain.filtered_files, 2)
})

test('a peer finds what is shared, whoever holds a link what is below it, a stranger nothing', async () => {
  await share(owner.sb, folder, peer.email)
  const found = await both(peer.sb, 'turbine efficiency', { explain: true, top_k: 20 })
  assert.deepEqual(names(found).sort(), ['harbour.txt', 'turbine.txt'])
  assert.equal(found.hits[0].path, '/Works/turbine.txt')
  assert.deepEqual(found.hits[0].access.map((way) => way.via), ['share'])

  const link = must(await owner.sb.rpc('create_share_link', { node: files['garden.md'], level: 'view' })).data
  const holder = await linkHolder(link.token)
  assert.deepEqual(names(await search(holder, 'tomatoes turbine')), ['garden.md'])

  for (const query of ['turbine efficiency', 'ZX-4471', '白海豚']) {
    assert.deepEqual((await both(stranger.sb, query)).hits, [], query)
  }
  await refused(newClient().rpc('hybrid_search', { query: 'turbine' }), 'PT401', 'NOT_AUTHENTICATED')
  await refused(
    stranger.sb.rpc('hybrid_search', { query: 'turbine', filters: { folder_id: folder } }), 'PT404', 'NOT_FOUND',
  )
})

test('what is wrong is refused, and says what would be right', async () => {
  const { embedding } = await embed(owner.sb, 'turbine')
  const wrong = async (args, field) => {
    const details = await refused(
      owner.sb.rpc('hybrid_search', { query: 'turbine', ...args }), 'PT422', 'INVALID_ARGUMENT',
    )
    assert.equal(details.field, field)
    return details
  }
  assert.equal((await wrong({ embedding: embedding.slice(1) }, 'embedding')).expected, 384)
  await wrong({ embedding: ['NaN', ...embedding.slice(1)] }, 'embedding')
  await wrong({ embedding, space: 'retired' }, 'space')
  await wrong({ query: 'ab' }, 'query')
  await wrong({ query: '  ab  ' }, 'query')
  await wrong({ query: 'x'.repeat(1001) }, 'query')
  await wrong({ filters: { colour: 'red' } }, 'filters.colour')
  await wrong({ options: { colour: 'red' } }, 'options.colour')
  await wrong({ top_k: 0 }, 'top_k')
})

test('what looks like SQL or query syntax is only text', async () => {
  for (const query of [
    "'; drop table chunks; --", 'turbine & | ! ( ) :* <-> ', '"unclosed', '-turbine', '***', '\u202eenibrut',
    '🐋🐋🐋', 'x'.repeat(1000), 'a \\ b %_', 'a\u0301'.repeat(400),
  ]) {
    assert.ok(Array.isArray((await search(owner.sb, query)).hits), query)
  }
  assert.equal(names(await search(owner.sb, "turbine'; drop table chunks; --"))[0], 'turbine.txt')
})

test('a search can be shown again as it was, to nobody else', async () => {
  const answer = await both(owner.sb, 'turbine efficiency')
  const replay = must(await owner.sb.rpc('search_replay', { search_id: answer.search_id })).data
  assert.deepEqual(replay.hits.map((h) => h.chunk_id), answer.hits.map((h) => h.chunk_id))
  await refused(stranger.sb.rpc('search_replay', { search_id: answer.search_id }), 'PT404', 'NOT_FOUND')
})
