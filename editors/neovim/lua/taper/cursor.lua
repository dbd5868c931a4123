-- Tells the server where the cursor rests although nothing was typed, so that it can read the text there ahead.
-- It knows nothing of what the server does with that.
local M = {}

-- So long it has to rest.
local REST_MS = 100

local group = vim.api.nvim_create_augroup('taper.cursor', {})
local timer
-- By buffer: the text's version when the cursor was seen last. One that changed since was typed in.
local versions = {}

local function place()
  local bufnr, cursor = vim.api.nvim_get_current_buf(), vim.api.nvim_win_get_cursor(0)
  return { bufnr, vim.api.nvim_buf_get_changedtick(bufnr), cursor[1], cursor[2] }
end

-- Where somebody would go on to type. In normal mode the cursor stands on the last character at most: there, behind it
-- is meant (`A`, `o`).
local function position(client)
  local found = vim.lsp.util.make_position_params(0, client.offset_encoding).position
  local on = vim.api.nvim_get_current_line():sub(vim.api.nvim_win_get_cursor(0)[2] + 1)
  if vim.fn.strchars(on, true) == 1 then
    local width = client.offset_encoding == 'utf-8' and #on or vim.fn.strutf16len(on)
    found.character = found.character + width
  end
  return found
end

local function tell(where)
  local server = require('taper.server')
  local client = server.client(0)
  -- Insert mode asks anyway, and a selection is no place.
  if not client or vim.api.nvim_get_mode().mode ~= 'n' or not vim.deep_equal(where, place()) then return end
  if not vim.tbl_get(client.server_capabilities, 'experimental', 'taper', 'cursor') then return end
  if not require('taper').active(0) then return end
  server.notify(client, 'taper/cursor', {
    textDocument = server.document(0),
    position = position(client),
  })
end

local function moved()
  local where = place()
  local bufnr, version = where[1], where[2]
  local typed = versions[bufnr] and versions[bufnr] ~= version
  versions[bufnr] = version
  timer = timer or vim.uv.new_timer()
  timer:stop()
  if typed then return end
  timer:start(REST_MS, 0, vim.schedule_wrap(function() tell(where) end))
end

--- Begins to watch the cursor in a buffer.
function M.attach(bufnr)
  versions[bufnr] = nil
  vim.api.nvim_clear_autocmds({ group = group, buffer = bufnr })
  vim.api.nvim_create_autocmd({ 'CursorMoved', 'BufEnter' }, { group = group, buffer = bufnr, callback = moved })
  if bufnr == vim.api.nvim_get_current_buf() then moved() end
end

return M
