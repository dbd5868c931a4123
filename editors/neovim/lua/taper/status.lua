-- What the server is doing: from its own `taper/status` where it sends that, else from LSP progress and messages.
-- It knows nothing of how it is shown, but for the one line that statusline() makes of it.
local M = {}

-- By client: { state = 'loading' | 'ready' | 'thinking' | 'paused' | 'error', message, percent, model, device }.
local states = {}
-- Clients that sent `taper/status`: their progress and messages say nothing more.
local precise = {}
-- It crashed too often and was not started again.
M.broken = false
-- The last message in full.
M.message = nil

--- Sets what is known of a client; nil forgets it.
function M.set(client_id, state)
  states[client_id] = state
  if not state then precise[client_id] = nil end
  vim.schedule(function() vim.cmd('redrawstatus!') end)
end

--- The server answered `initialize`.
function M.started(client)
  -- A server that loads says so before anybody sees this.
  M.set(client.id, { state = 'ready' })
end

--- `taper/status` came.
function M.received(client_id, status)
  if type(status) ~= 'table' then return end
  precise[client_id] = true
  local known = {}
  for _, name in ipairs({ 'state', 'message', 'percent', 'model', 'device' }) do
    if status[name] ~= vim.NIL then known[name] = status[name] end
  end
  M.set(client_id, known)
end

--- Progress of loading the model.
function M.progress(client_id, value)
  if precise[client_id] then return end
  if value.kind == 'end' then
    -- Loading that fails ends too, and says why in a message.
    return M.set(client_id, { state = 'ready' })
  end
  local old = states[client_id] or {}
  M.set(client_id, { state = 'loading', message = value.message or old.message, percent = value.percentage })
end

--- A message to the user.
function M.told(client_id, message)
  if precise[client_id] or not message.message:find('cannot suggest', 1, true) then return end
  M.set(client_id, { state = 'error', message = message.message })
end

--- A question was answered. One with text cannot come from a server without a model.
function M.answered(client)
  local now = states[client.id]
  if not precise[client.id] and now and now.state == 'loading' and not now.message then
    M.set(client.id, { state = 'ready' })
  end
end

--- What is known for a buffer, and why nothing is suggested if so; nil where no server is attached.
function M.of(bufnr)
  if M.broken then return { state = 'stopped', message = '`:Taper restart` starts the server again' } end
  local client = require('taper.server').clients(bufnr)[1]
  if not client then return nil end
  local taper = require('taper')
  local state = vim.deepcopy(states[client.id] or { state = 'starting' })
  if state.state == 'error' then return state end
  if taper.paused() then state.state = 'paused' end
  if not taper.enabled(bufnr) then state.state = 'off' end
  return state
end

local words = {
  ready = '',
  thinking = ' …',
  starting = ' …',
  off = ' off',
  paused = ' paused',
  error = ' !',
  stopped = ' stopped',
}

--- A few characters for a status line; empty where taper is not at work.
function M.line(bufnr)
  local now = M.of(bufnr)
  if not now then return '' end
  if now.state == 'loading' then return now.percent and ('taper %d%%%%'):format(now.percent) or 'taper …' end
  return 'taper' .. (words[now.state] or ' ' .. tostring(now.state))
end

return M
