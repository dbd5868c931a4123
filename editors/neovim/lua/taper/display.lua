-- What is shown at the cursor: by Neovim's own inline completion, or by extmarks of the plugin's own.
-- It knows nothing of keys, and of the server only how to ask it.
--
-- Every answer passes through `received`, whoever asked. The plugin asks and draws; with `native = true` Neovim does, and
-- the plugin draws only what Neovim cannot: what remains of a suggestion that was accepted in part, another candidate,
-- what follows a suggestion that was accepted, and what the server found out later.
local config = require('taper.config')
local menu = require('taper.menu')
local suggestion = require('taper.suggestion')

local M = {}

local space = vim.api.nvim_create_namespace('taper')
local group = vim.api.nvim_create_augroup('taper.display', {})

-- The last answer: its suggestions, which of them is shown, and whether the plugin draws it.
local items, index, own = {}, 1, true
-- The user chose it among several: it stays as long as it fits.
local chosen = false
-- Where was asked last: several events tell of one key.
local asked
-- Where the user dismissed a suggestion.
local dismissed
-- The last question for all candidates: where it was asked, how many steps the user went since, and whether it is open.
local all = {}
local timer

local function native_space() return vim.api.nvim_get_namespaces()['nvim.lsp.inline_completion'] end

local function inserting() return vim.startswith(vim.api.nvim_get_mode().mode, 'i') end

-- Where the cursor is, in which text.
local function here()
  local bufnr, cursor = vim.api.nvim_get_current_buf(), vim.api.nvim_win_get_cursor(0)
  return { bufnr, vim.api.nvim_buf_get_changedtick(bufnr), cursor[1], cursor[2] }
end

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
  items, index, chosen, asked, all = {}, 1, false, nil, {}
  erase()
end

-- Which of the candidates goes on from the one that was shown: as many steps on as the user went. That one comes to
-- stand before the others if it is not one of them; it may have been shown before its end was known.
local function choose(found, item, rest)
  local at
  for number, other in ipairs(found) do
    local text = suggestion.rest(other)
    if vim.startswith(text, rest) or vim.startswith(rest, text) then
      at = at or number
    end
  end
  if not at then
    table.insert(found, 1, item)
    at = 1
  end
  return (at - 1 + all.steps) % #found + 1
end

--- Takes an answer that was asked for at `place`, and `why` the plugin asked: 'typing', a 'person' who wants them all, or
--- 'more' of what is shown; nil if Neovim asked. False if it does not fit any more.
function M.received(client, place, result, why)
  local found = {}
  for _, item in ipairs(result and (result.items or result) or {}) do
    local read = place and suggestion.read(item, place, client)
    if read and inserting() and suggestion.rest(read) then table.insert(found, read) end
  end
  local item, rest = M.shown()
  if why == 'person' then all.open = false end
  if item and #found == 0 and (why == 'person' or why == 'more') then return false end
  if item and chosen and why ~= 'person' then return false end
  local first = 1
  if item and why == 'person' then first = choose(found, item, rest) end
  items, index, own = found, first, why ~= nil or not config.native()
  chosen = why == 'person' and #found > 1 and all.steps ~= 0
  if own then drop_native() end
  M.refresh()
  return #found > 0
end

--- Asks for suggestions at the cursor, because of 'typing', for a 'person' who wants them all, or for 'more' of what the
--- server knew; `done` is called once it is answered.
function M.ask(why, done)
  local server = require('taper.server')
  local client = server.client(0)
  if not client or not require('taper').active(0) or not inserting() then return end
  local now = here()
  if why == 'typing' and asked and vim.deep_equal(asked, now) then return end
  asked, dismissed = now, nil
  local params = vim.lsp.util.make_position_params(0, client.offset_encoding)
  server.asking = why
  server.request(client, 'textDocument/inlineCompletion', {
    textDocument = server.document(0),
    position = params.position,
    context = { triggerKind = why == 'person' and 1 or 2 },
  }, function(failed)
    -- Superseded, most likely: it can be asked again.
    if failed and why == 'person' then all = {} end
    if done and not failed then done() end
  end, now[1])
  server.asking = nil
end

--- The server knows more of what it was asked at a place: asks again, if that is still where the user is.
function M.more(client, params)
  local bufnr = vim.api.nvim_get_current_buf()
  local server = require('taper.server')
  if not client or not inserting() or server.document(bufnr).uri ~= params.textDocument.uri then return end
  local version = params.version ~= vim.NIL and params.version or nil
  if version and version ~= server.version(bufnr) then return end
  local position = vim.lsp.util.make_position_params(0, client.offset_encoding).position
  if position.line ~= params.position.line or position.character ~= params.position.character then return end
  local now = here()
  local person = vim.deep_equal(all.here, now)
  if vim.deep_equal(dismissed, now) or all.open and person then return end
  -- What grows under an open menu would push its text about; the next event asks.
  if menu.open() then
    asked = nil
    return
  end
  -- Who asked for all is shown the rest of the first at once, and the others as soon as they are there.
  M.ask('more', person and #items <= 1 and function()
    if vim.deep_equal(here(), now) and vim.deep_equal(all.here, now) then
      all.open = true
      M.ask('person')
    end
  end or nil)
end

-- A key was typed, or the cursor went elsewhere.
local function moved()
  M.refresh()
  if config.native() or chosen and M.shown() then return end
  timer = timer or vim.uv.new_timer()
  timer:stop()
  if config.used.delay <= 0 then return M.ask('typing') end
  timer:start(config.used.delay, 0, vim.schedule_wrap(function() M.ask('typing') end))
end

--- Accepts what is shown, cut by `cut` if it is given; false if nothing is shown.
function M.accept(cut)
  local item, rest = M.shown()
  if not item then return false end
  drop_native()
  local remains = suggestion.insert(item, rest, cut and cut(rest) or rest)
  items, index, own, asked = { remains }, 1, true, nil
  chosen = chosen and remains ~= nil
  M.refresh()
  if remains then return true end
  if item.command then require('taper.server').execute(item.command, item.client_id) end
  -- After Neovim has forgotten the old one.
  vim.schedule(function() M.ask('typing') end)
  return true
end

--- Shows another suggestion, `step` further; the first time, asks for all of them. Does nothing if there is one only.
function M.cycle(step)
  if not M.shown() then return M.trigger() end
  if #items > 1 then
    if not own then drop_native() end
    index, own, chosen = (index - 1 + step) % #items + 1, true, true
    return M.refresh()
  end
  local now = here()
  if vim.deep_equal(all.here, now) then
    all.steps = all.steps + step
    return
  end
  all = { here = now, steps = step, open = true }
  M.ask('person')
end

--- Asks for all suggestions here and now.
function M.trigger()
  all = { here = here(), steps = 0, open = true }
  M.ask('person')
end

--- Hides what is shown until the next key; false if nothing was.
function M.dismiss()
  if not M.shown() then return false end
  drop_native()
  items, index, chosen, dismissed = {}, 1, false, here()
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
  vim.api.nvim_create_autocmd({ 'InsertEnter', 'CursorMovedI', 'TextChangedI', 'TextChangedP', 'CompleteDone' }, {
    group = group,
    buffer = bufnr,
    -- Entering insert mode is seen once it is entered.
    callback = function(event)
      if event.event == 'InsertEnter' then vim.schedule(moved) else moved() end
    end,
  })
  vim.api.nvim_create_autocmd({ 'InsertLeave', 'BufLeave' }, { group = group, buffer = bufnr, callback = M.clear })
  vim.api.nvim_create_autocmd('ColorScheme', { group = group, buffer = bufnr, callback = highlights })
  if inserting() and bufnr == vim.api.nvim_get_current_buf() then vim.schedule(function() M.ask('typing') end) end
end

--- Shows suggestions in a buffer no longer.
function M.leave(bufnr)
  vim.api.nvim_clear_autocmds({ group = group, buffer = bufnr })
  if bufnr == vim.api.nvim_get_current_buf() then M.clear() end
  erase(bufnr)
end

--- Switches suggestions in a buffer on or off.
function M.enable(bufnr, on)
  if config.native() then vim.lsp.inline_completion.enable(on, { bufnr = bufnr }) end
  if not on then
    items, index, chosen = {}, 1, false
    erase(bufnr)
  elseif bufnr == vim.api.nvim_get_current_buf() then
    asked = nil
    M.ask('typing')
  end
end

return M
