-- The command :Taper, its subcommands and their completion.
-- It knows nothing of how they do what they do.
local M = {}

-- The server's options and what can be written for them; a test compares the names with the server's own.
M.options = {
  ['model'] = {},
  ['latency-budget-ms'] = { '100', '300', '500' },
  ['explicit-budget-ms'] = { '300', '2000', '5000' },
  ['suggest'] = { 'line', 'auto', 'block' },
  ['eagerness'] = { 'low', 'medium', 'high' },
  ['max-lines'] = { '1', '12' },
  ['max-tokens'] = { '96' },
  ['prefix-tokens'] = { '2048' },
  ['suffix-tokens'] = { '0', '128', '400' },
  ['snippet-tokens'] = { '0', '512' },
  ['other-files'] = { 'true', 'false' },
  ['excluded-files'] = {},
  ['enable'] = { 'true', 'false' },
  ['disabled-languages'] = {},
  ['debounce-ms'] = { '0', '75' },
  ['early-answer-ms'] = { '50', '60000' },
  ['idle-work'] = { 'off', 'modest', 'full' },
  ['threads'] = { '0' },
  ['context'] = { '0' },
  ['cache-mb'] = { '0', '128' },
  ['device'] = { 'auto', 'cpu', 'cuda', 'metal' },
  ['kernel'] = { 'auto' },
  ['offline'] = { 'true', 'false' },
  ['statistics'] = { 'true', 'false' },
}

local function say(message, level) require('taper.server').say(message, level) end

-- Text as an option's value: JSON where it is some, else the text itself.
local function value(text)
  local read, found = pcall(vim.json.decode, text)
  if read and type(found) ~= 'nil' then return found end
  return text
end

local function names_of_models()
  local program = require('taper.server').program()
  if not program then return {} end
  local done = vim.system({ program, 'models' }, { text = true, timeout = 2000 }):wait()
  local names = {}
  for line in (done.stdout or ''):gmatch('[^\n]+') do
    local name = line:match('^([%w%.%-]+%-[%w%.%-]+)%s')
    if name then names[#names + 1] = name end
  end
  return names
end

-- `taper pull`, with its last line of progress in the status line's place.
local function pull(arguments)
  local program, problem = require('taper.server').program()
  if not program then return say(problem, vim.log.levels.ERROR) end
  say('fetching ' .. (arguments[1] or 'the default model') .. ' …')
  local last = ''
  vim.system(vim.list_extend({ program, 'pull' }, arguments), {
    text = true,
    stderr = function(_, data)
      for line in (data or ''):gmatch('[^\r\n]+') do last = line end
    end,
  }, function(done)
    if done.code == 0 then
      say(vim.trim(done.stdout or '') .. ' is here')
    else
      say('`taper pull` failed: ' .. last, vim.log.levels.ERROR)
    end
  end)
end

-- A command of the server that tells something, shown as it comes.
local function ask(name)
  return function()
    local client = require('taper.server').clients()[1]
    local offered = client and vim.tbl_get(client.server_capabilities, 'executeCommandProvider', 'commands') or {}
    if not vim.tbl_contains(offered, name) then return say('this server cannot tell', vim.log.levels.WARN) end
    require('taper.server').execute({ command = name }, client.id, function(result)
      vim.notify(type(result) == 'string' and result or vim.inspect(result))
    end)
  end
end

local commands = {
  status = function()
    local now = require('taper').status(0)
    if not now then return say('not attached to this buffer; `:checkhealth taper` says more') end
    local parts = { now.state, now.message, now.model, now.device }
    local line = table.concat(vim.tbl_values(parts), ', ')
    if now.percent then line = line .. (', %d %%'):format(now.percent) end
    -- Asked for, it may take more than one line.
    vim.notify('taper: ' .. line .. (M.last() and '\nlast message: ' .. M.last() or ''))
  end,
  toggle = function() require('taper').toggle() end,
  enable = function() require('taper').enable() end,
  disable = function() require('taper').disable() end,
  pause = function() require('taper').pause() end,
  resume = function() require('taper').resume() end,
  restart = function() require('taper').restart() end,
  stop = function() require('taper.server').stop() end,
  explain = ask('taper.explainLast'),
  statistics = ask('taper.statistics'),
  log = function() vim.cmd.tabedit(vim.fn.fnameescape(require('taper.server').log())) end,
  health = function() vim.cmd.checkhealth('taper') end,
  pull = pull,
  model = function(arguments)
    if not arguments[1] then return say('which one? `:Taper model NAME`; Tab lists them', vim.log.levels.ERROR) end
    require('taper').set({ model = arguments[1] })
  end,
  set = function(arguments)
    local name = arguments[1]
    if not name or not M.options[name] then
      return say(('`%s` is no option of the server'):format(name or ''), vim.log.levels.ERROR)
    end
    if not arguments[2] then return say(name .. ' = ' .. vim.inspect(require('taper.server').options()[name])) end
    require('taper').set({ [name] = value(table.concat(arguments, ' ', 2)) })
  end,
}

--- The last message, in full; nil if there was none.
function M.last() return require('taper.status').message end

--- Runs `:Taper SUBCOMMAND …`; without one it shows the status.
function M.run(call)
  local name = call.fargs[1] or 'status'
  local command = commands[name]
  if not command then
    return say(('`%s` is no subcommand; Tab lists them'):format(name), vim.log.levels.ERROR)
  end
  command(vim.list_slice(call.fargs, 2))
end

--- The subcommands' names, sorted.
function M.names()
  local names = vim.tbl_keys(commands)
  table.sort(names)
  return names
end

--- Completes what is being typed behind `:Taper`.
function M.complete(lead, line)
  local words = vim.split(vim.trim(line:gsub('^.-Taper', '')), '%s+', { trimempty = true })
  if lead ~= '' then table.remove(words) end
  local found = {}
  if #words == 0 then
    found = M.names()
  elseif #words == 1 and (words[1] == 'model' or words[1] == 'pull') then
    found = names_of_models()
  elseif #words == 1 and words[1] == 'set' then
    found = vim.tbl_keys(M.options)
  elseif #words == 2 and words[1] == 'set' then
    found = words[2] == 'model' and names_of_models() or M.options[words[2]] or {}
  end
  found = vim.tbl_filter(function(word) return vim.startswith(word, lead) end, found)
  table.sort(found)
  return found
end

return M
