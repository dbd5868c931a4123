-- What is shown at the cursor: by Neovim's own inline completion, or by extmarks of the plugin's own.
-- It knows nothing of keys, and of the server only how to ask it.
--
-- Every answer passes through `received`, whoever asked. In Neovim 0.12 Neovim asks and draws; the plugin draws only
-- what Neovim cannot: what remains of a suggestion that was accepted in part, another candidate, and what follows a
-- suggestion that was accepted. On older ones, or with `native = false`, it asks and draws everything.
local config = require('taper.config')
local suggestion = require('taper.suggestion')

local M = {}

local space = vim.api.nvim_create_namespace('taper')
local group = vim.api.nvim_create_augroup('taper.display', {})

-- The last answer: its suggestions, which of them is shown, and whether the plugin draws it.
local items, index, own = {}, 1, true
-- Where was asked last: several events tell of one key.
local asked
local timer

local function native_space() return vim.api.nvim_get_namespaces()['nvim.lsp.inline_completion'] end

local function inserting() return vim.startswith(vim.api.nvim_get_mode().mode, 'i') end

-- Tabs as the blanks that they stand for: virtual text would show them as ^I.
local function blanks(text, column)
  local out, width = {}, column
  for before, tab in text:gmatch('([^\t]*)(\t?)') do
    table.insert(out, before)
    width = width + vim.fn.strdisplaywidth(before)
    if tab ~= '' then
      local step = vim.bo.tabstop - width % vim.bo.tabstop
      table.insert(out, (' '):rep(step))
      width = width + step
    end
  end
  return table.concat(out)
end

local function erase(bufnr)
  for _, buffer in ipairs(bufnr and { bufnr } or vim.api.nvim_list_bufs()) do
    if vim.api.nvim_buf_is_valid(buffer) then vim.api.nvim_buf_clear_namespace(buffer, space, 0, -1) end
  end
end

-- Hides what Neovim shows; it does not forget it.
local function erase_native(bufnr)
  local native = native_space()
  if native then vim.api.nvim_buf_clear_namespace(bufnr, native, 0, -1) end
end

-- Makes Neovim forget what it shows. It does so in a moment, and draws it once more until then.
local function drop_native()
  local bufnr = vim.api.nvim_get_current_buf()
  if not (config.native() and vim.lsp.inline_completion.get({ on_accept = function() end })) then return end
  erase_native(bufnr)
  vim.api.nvim_create_autocmd('CursorMovedI', {
    group = group,
    buffer = bufnr,
    once = true,
    callback = function() erase_native(bufnr) end,
  })
end

local function draw(item, rest)
  local place = suggestion.place()
  local column = vim.fn.strdisplaywidth(place.before)
  local lines = vim.split(rest, '\n', { plain = true })
  local below = {}
  for i = 2, #lines do
    below[#below + 1] = { { blanks(lines[i], 0), 'TaperGhost' } }
  end
  local first = { { blanks(lines[1], column), 'TaperGhost' } }
  if #items > 1 then
    table.insert(below[#below] or first, { (' (%d/%d)'):format(index, #items), 'TaperGhostCount' })
  end
  vim.api.nvim_buf_set_extmark(item.place.bufnr, space, place.row, #place.before, {
    id = 1,
    virt_text = first,
    virt_text_pos = 'inline',
    virt_lines = below,
    hl_mode = 'combine',
  })
end

--- The suggestion at the cursor and what of it is still to be inserted; nil if none is shown that fits.
function M.shown()
  local item = items[index]
  if not item or not inserting() then return nil end
  local rest = suggestion.rest(item)
  if not rest then return nil end
  if not own then
    local native = native_space()
    local marks = native and vim.api.nvim_buf_get_extmarks(0, native, 0, -1, { limit = 1 }) or {}
    if #marks == 0 then return nil end
  end
  return item, rest
end

--- Shows what still fits, and hides what does not.
function M.refresh()
  local bufnr = vim.api.nvim_get_current_buf()
  erase(bufnr)
  local item = items[index]
  if not item then return end
  local rest = inserting() and suggestion.rest(item)
  if own and rest then
    draw(item, rest)
  elseif not rest then
    -- Neovim would go on to show it.
    erase_native(bufnr)
  end
end

--- Forgets what is shown.
function M.clear()
  if timer then timer:stop() end
  items, index, asked = {}, 1, nil
  erase()
end

--- Takes an answer that was asked for at `place`; `mine` if the plugin asked. False if it does not fit any more.
function M.received(client, place, result, mine)
  local found = {}
  for _, item in ipairs(result and (result.items or result) or {}) do
    local read = place and suggestion.read(item, place, client)
    if read and inserting() and suggestion.rest(read) then table.insert(found, read) end
  end
  items, index, own = found, 1, mine or not config.native()
  if own then drop_native() end
  M.refresh()
  return #found > 0
end

--- Asks for suggestions at the cursor. `kind` is 1 for a person who asked, and 2 for typing.
function M.ask(kind)
  local server = require('taper.server')
  local client = server.client(0)
  if not client or not require('taper').active(0) or not inserting() then return end
  local place = suggestion.place()
  local here = { place.bufnr, vim.api.nvim_buf_get_changedtick(0), place.row, #place.before }
  if kind == 2 and asked and vim.deep_equal(asked, here) then return end
  asked = here
  local params = vim.lsp.util.make_position_params(0, client.offset_encoding)
  server.asking = true
  server.request(client, 'textDocument/inlineCompletion', {
    textDocument = vim.lsp.util.make_text_document_params(0),
    position = params.position,
    context = { triggerKind = kind },
  }, function() end, place.bufnr)
  server.asking = false
end

-- A key was typed, or the cursor went elsewhere.
local function moved()
  M.refresh()
  if config.native() then return end
  timer = timer or vim.uv.new_timer()
  timer:stop()
  if config.used.delay <= 0 then return M.ask(2) end
  timer:start(config.used.delay, 0, vim.schedule_wrap(function() M.ask(2) end))
end

--- Accepts what is shown, cut by `cut` if it is given; false if nothing is shown.
function M.accept(cut)
  local item, rest = M.shown()
  if not item then return false end
  drop_native()
  local remains = suggestion.insert(item, rest, cut and cut(rest) or rest)
  items, index, own, asked = { remains }, 1, true, nil
  M.refresh()
  if remains then return true end
  if item.command then require('taper.server').execute(item.command, item.client_id) end
  -- After Neovim has forgotten the old one.
  vim.schedule(function() M.ask(2) end)
  return true
end

--- Shows another suggestion, `step` further; asks for more of them if there is only one.
function M.cycle(step)
  if not M.shown() or #items < 2 then return M.ask(1) end
  if not own then drop_native() end
  index, own = (index - 1 + step) % #items + 1, true
  M.refresh()
end

--- Hides what is shown until the next key; false if nothing was.
function M.dismiss()
  if not M.shown() then return false end
  drop_native()
  items, index = {}, 1
  erase()
  return true
end

local function highlights()
  local hint = vim.fn.hlexists('ComplHint') == 1
  vim.api.nvim_set_hl(0, 'TaperGhost', { default = true, link = hint and 'ComplHint' or 'NonText' })
  vim.api.nvim_set_hl(0, 'TaperGhostCount', { default = true, link = hint and 'ComplHintMore' or 'NonText' })
end

--- Begins to show suggestions in a buffer.
function M.attach(bufnr)
  highlights()
  vim.api.nvim_clear_autocmds({ group = group, buffer = bufnr })
  M.enable(bufnr, require('taper').active(bufnr))
  vim.api.nvim_create_autocmd({ 'InsertEnter', 'CursorMovedI', 'TextChangedI', 'TextChangedP' }, {
    group = group,
    buffer = bufnr,
    -- Entering insert mode is seen once it is entered.
    callback = function(event)
      if event.event == 'InsertEnter' then vim.schedule(moved) else moved() end
    end,
  })
  vim.api.nvim_create_autocmd({ 'InsertLeave', 'BufLeave' }, { group = group, buffer = bufnr, callback = M.clear })
  vim.api.nvim_create_autocmd('ColorScheme', { group = group, buffer = bufnr, callback = highlights })
  if inserting() and bufnr == vim.api.nvim_get_current_buf() then vim.schedule(function() M.ask(2) end) end
end

--- Switches suggestions in a buffer on or off.
function M.enable(bufnr, on)
  if config.native() then vim.lsp.inline_completion.enable(on, { bufnr = bufnr }) end
  if not on then
    items, index = {}, 1
    erase(bufnr)
  elseif bufnr == vim.api.nvim_get_current_buf() then
    asked = nil
    M.ask(2)
  end
end

return M
