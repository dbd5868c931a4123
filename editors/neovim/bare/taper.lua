-- taper in Neovim 0.12 or newer: copy this file to ~/.config/nvim/plugin/taper.lua.
vim.lsp.config('taper', { cmd = { 'taper', 'serve', '--stdio' }, root_markers = { '.git' } })
vim.lsp.enable('taper')
vim.lsp.inline_completion.enable(true)

-- Neovim 0.12 keeps showing a suggestion while one types on, yet puts it where it was asked for: what was
-- typed since would stay behind it (neovim#36529). So first take back what is typed already, and if the
-- suggestion does not fit any more, leave it and let Tab be Tab.
local function still_fits(item)
  local client = vim.lsp.get_client_by_id(item.client_id)
  if not client or client.name ~= 'taper' then return item end
  item.insert_text = item.insert_text:gsub('\r\n?', '\n')
  local row, start = item.range:to_extmark()
  local cursor = vim.api.nvim_win_get_cursor(0)
  local typed = vim.api.nvim_get_current_line():sub(start + 1, cursor[2])
  if cursor[1] ~= row + 1 or cursor[2] < start or #typed >= #item.insert_text
      or not vim.startswith(item.insert_text, typed) then
    return vim.api.nvim_feedkeys('\t', 'in', false)
  end
  vim.api.nvim_buf_set_text(0, row, start, row, cursor[2], {})
  return item
end

vim.keymap.set('i', '<Tab>', function()
  if not vim.lsp.inline_completion.get({ on_accept = still_fits }) then return '<Tab>' end
end, { expr = true, desc = 'Accept the suggestion that is shown' })

-- Neovim tells of a file's new name (`:file`, `:saveas`) only when it is written, and of changes under the new one at once:
-- so the file is closed under the old one, and opened again under whatever it is called then.
vim.api.nvim_create_autocmd('BufFilePre', {
  callback = function(event)
    for _, client in ipairs(vim.lsp.get_clients({ name = 'taper', bufnr = event.buf })) do
      vim.lsp.buf_detach_client(event.buf, client.id)
      vim.schedule(function()
        if vim.api.nvim_buf_is_loaded(event.buf) then vim.lsp.buf_attach_client(event.buf, client.id) end
      end)
    end
  end,
})
