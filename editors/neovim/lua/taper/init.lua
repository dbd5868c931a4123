-- taper: suggestions from a small language model on this machine. What a configuration calls.
-- It knows nothing of the protocol or of extmarks; the files beside this one do.
local M = {}

-- Off everywhere.
local paused = false

--- Starts taper. Options are in `:help taper-options`.
function M.setup(options)
  if vim.fn.has('nvim-0.10') == 0 then
    return vim.notify('taper: needs Neovim 0.10 or newer', vim.log.levels.ERROR)
  end
  require('taper.config').set(options)
  require('taper.keys').map()
  local server, group = require('taper.server'), vim.api.nvim_create_augroup('taper', {})
  vim.api.nvim_create_autocmd('FileType', { group = group, callback = function(event) server.attach(event.buf) end })
  -- `:file`, `:saveas`, a file tree that renames. A buffer without a name gets one when it is written, and only that tells.
  vim.api.nvim_create_autocmd('BufFilePre', { group = group, callback = function(event) server.unname(event.buf) end })
  vim.api.nvim_create_autocmd({ 'BufFilePost', 'BufWritePost' }, {
    group = group,
    callback = function(event) server.rename(event.buf) end,
  })
  vim.api.nvim_create_autocmd('LspProgress', {
    group = group,
    callback = function(event)
      local data = event.data or {}
      local client = data.client_id and vim.lsp.get_client_by_id(data.client_id)
      local value = data.params and data.params.value
      if client and client.name == 'taper' and value then require('taper.status').progress(client.id, value) end
    end,
  })
  -- Loaded late, the files that are open have their types already.
  if vim.v.vim_did_enter == 1 then server.attach_all() end
end

--- Accepts the suggestion; false if none is shown.
function M.accept() return require('taper.display').accept() end

--- Accepts the next word of it.
function M.accept_word() return require('taper.display').accept(require('taper.suggestion').word) end

--- Accepts the next line of it.
function M.accept_line() return require('taper.display').accept(require('taper.suggestion').line) end

--- Shows the next suggestion.
function M.next() require('taper.display').cycle(1) end

--- Shows the one before.
function M.previous() require('taper.display').cycle(-1) end

--- Hides the suggestion until the next key; false if none is shown.
function M.dismiss() return require('taper.display').dismiss() end

--- Asks for a suggestion here and now.
function M.trigger() require('taper.display').trigger() end

--- Whether a suggestion is shown that `accept` would take.
function M.visible() return require('taper.display').shown() ~= nil end

--- Whether suggestions are switched on in a buffer (0 or nil: this one).
function M.enabled(bufnr) return vim.b[bufnr or 0].taper_enabled ~= false end

--- Whether suggestions are paused everywhere.
function M.paused() return paused end

--- Whether anything is suggested in a buffer.
function M.active(bufnr) return not paused and M.enabled(bufnr) end

local function refresh(bufnr)
  if #require('taper.server').clients(bufnr) > 0 then require('taper.display').enable(bufnr, M.active(bufnr)) end
  vim.cmd('redrawstatus!')
end

--- Switches suggestions in a buffer on or off.
function M.enable(on, bufnr)
  bufnr = (bufnr or 0) == 0 and vim.api.nvim_get_current_buf() or bufnr
  vim.b[bufnr].taper_enabled = on ~= false
  refresh(bufnr)
end

--- Switches suggestions in a buffer off.
function M.disable(bufnr) M.enable(false, bufnr) end

--- Switches suggestions in a buffer off or on again.
function M.toggle(bufnr) M.enable(not M.enabled(bufnr), bufnr) end

local function everywhere(value)
  paused = value
  -- The server then computes nothing either.
  require('taper.server').set({ enable = value and false or vim.NIL })
  for _, bufnr in ipairs(vim.api.nvim_list_bufs()) do
    if vim.api.nvim_buf_is_loaded(bufnr) then refresh(bufnr) end
  end
end

--- Pauses suggestions everywhere.
function M.pause() everywhere(true) end

--- Goes on after `pause`.
function M.resume() everywhere(false) end

--- Changes options of the server while it runs: { ['latency-budget-ms'] = 500 }.
function M.set(options) require('taper.server').set(options) end

--- Ends the server and starts it again.
function M.restart()
  local server = require('taper.server')
  server.stop(server.attach_all)
end

--- What taper is doing in a buffer: { state, message, percent, model, device }; nil where it is not attached.
function M.status(bufnr) return require('taper.status').of(bufnr or 0) end

--- The same in a few characters, for 'statusline': %{%v:lua.require'taper'.statusline()%}
function M.statusline(bufnr) return require('taper.status').line(bufnr or vim.api.nvim_get_current_buf()) end

return M
