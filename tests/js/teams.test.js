import assert from 'node:assert/strict'
import { before, test } from 'node:test'
import { beginUpload, must, newUser, uploadText } from './helpers.js'

let owner, peer

before(async () => {
  owner = await newUser('Owner')
  peer = await newUser('Peer')
})

test('an upload under way ends with the right to make it', async () => {
  const { data: folder } = must(await owner.sb.rpc('create_folder', { parent: null, name: 'Launch' }))
  const { data: made } = must(
    await owner.sb.rpc('share_node', {
      node: folder.id, grantee: { user_id: peer.id }, level: 'edit', expires_at: null,
    }),
  )
  const ticket = await beginUpload(peer.sb, 'mine.txt', 5, { folder_id: folder.id })
  must(await owner.sb.rpc('unshare_node', { share_id: made.id }))
  const { data: upload } = must(await peer.sb.from('uploads').select('state').eq('id', ticket.upload_id).single())
  assert.equal(upload.state, 'aborted')
  const { error } = await peer.sb.storage.from('files').upload(ticket.key, new Blob(['hello']))
  assert.equal(error.statusCode, '403')
})

test('a workspace belongs to all its members', async () => {
  const { data: workspace } = must(await owner.sb.rpc('create_workspace', { name: 'Atlas' }))
  must(
    await owner.sb.rpc('add_workspace_member', {
      workspace_id: workspace.id, member: { user_id: peer.id }, level: 'edit',
    }),
  )
  const ticket = await uploadText(peer.sb, 'joint.txt', 'ours', { folder_id: workspace.root_id })
  const { data: joint } = must(await owner.sb.rpc('file_details', { file_id: ticket.file_id }))
  assert.deepEqual([joint.owner_id, joint.created_by, joint.level], [workspace.id, peer.id, 'owner'])
  const { data: mine } = must(await peer.sb.rpc('list_workspaces'))
  assert.deepEqual(mine.items.map((item) => [item.name, item.level]), [['Atlas', 'edit']])
  must(await owner.sb.rpc('delete_workspace', { id: workspace.id }))
  assert.deepEqual(must(await peer.sb.rpc('list_workspaces')).data.items, [])
})
