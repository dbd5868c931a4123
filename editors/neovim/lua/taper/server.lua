-- The server: found, started, watched, started again after a crash, told of changed options.
-- It knows nothing of how a suggestion is shown or accepted.
local config = require('taper.config')
local unnamed = require('taper.unnamed')

local M = {}

-- So often in so many seconds it is started again.
local TIMES, SECONDS = 5, 180

-- Why the plugin is asking just now: 'typing', 'person' or 'more'; nil while Neovim asks.
M.asking = nil

-- Options that were changed while it ran, over those of `setup`.
local changed = {}
-- When it crashed.
local crashes = {}
-- Buffers that it was attached to, and their file types then; they outlive a crash.
local buffers = {}
-- By client: the top folders that it was told of.
local roots = {}
-- Ends that were asked for.
local stopping = {}
-- Says once that there is no server.
local told

local has11 = vim.fn.has('nvim-0.11') == 1

--- Sends a request; Neovim 0.11 made clients objects.
function M.request(client, ...)
  if has11 then return client:request(...) end
  return client.request(...)
end

--- Sends a notification.
function M.notify(client, ...)
  if has11 then return client:notify(...) end
  return client.notify(...)
end

--- Says something to the user, in one line: a longer message waits for a key, and swallows it if one is just typed.
function M.say(message, level)
  vim.schedule(function()
    message = 'taper: ' .. message:gsub('^taper:? ', '')
    require('taper.status').message = message
    local room = vim.o.columns - 16
    if vim.fn.strdisplaywidth(message) > room then
      -- The remedy, if it is a command; the whole is kept.
      local remedy = message:match('run (`taper [^`]+`)')
      local rest = remedy and ' … run ' .. remedy or ' … :Taper status has more'
      message = vim.fn.strcharpart(message:gsub('%s+', ' '), 0, math.max(room - #rest, 20)) .. rest
    end
    vim.notify(message, level or vim.log.levels.INFO)
  end)
end

--- The server's program; nil and a sentence with the remedy if there is none.
function M.program()
  local cmd = config.used.cmd
  local name = type(cmd) == 'table' and cmd[1] or cmd
  local candidates = name and { vim.fs.normalize(name) } or { 'taper', vim.fs.normalize('~/.cargo/bin/taper') }
  for _, candidate in ipairs(candidates) do
    local path = vim.fn.exepath(candidate)
    if path ~= '' then return path end
  end
  if name then return nil, ('`cmd` names %s, which is no program; correct it, or leave it out'):format(name) end
  return nil,
    'the program `taper` is neither on the PATH nor in ~/.cargo/bin: run `cargo install --path .` in its source folder,'
      .. " or name it: require('taper').setup({ cmd = '/path/to/taper' })"
end

--- Where the server writes its log.
function M.log() return vim.fs.normalize(vim.fn.stdpath('log') .. '/taper.log') end

--- The command line that starts it.
function M.command(program)
  if type(config.used.cmd) == 'table' then return vim.list_extend({ program }, config.used.cmd, 2) end
  return { program, 'serve', '--stdio', '--log-file', M.log() }
end

--- The server's options: those of `setup`, and what was changed since.
function M.options() return vim.tbl_extend('force', config.used.options, changed) end

-- An empty Lua table is a list for JSON.
local function written() return vim.tbl_isempty(M.options()) and vim.empty_dict() or M.options() end

--- Changes options while the server runs; vim.NIL takes one back to what `setup` said.
function M.set(options)
  for name, value in pairs(options) do
    if value == vim.NIL then
      changed[name] = nil
    else
      changed[name] = value
    end
  end
  for _, client in ipairs(M.clients()) do
    M.notify(client, 'workspace/didChangeConfiguration', { settings = { taper = written() } })
  end
end

local function stopped(client)
  if has11 then return client:is_stopped() end
  return client.is_stopped()
end

--- All running clients: one for all projects, because each would hold a model in memory.
function M.clients(bufnr)
  if bufnr == 0 then bufnr = vim.api.nvim_get_current_buf() end
  if bufnr and unnamed.attached(bufnr) then bufnr = nil end
  local found = vim.lsp.get_clients({ name = 'taper', bufnr = bufnr })
  return vim.tbl_filter(function(client) return not stopped(client) end, found)
end

--- The client of a buffer, once it is ready.
function M.client(bufnr)
  local client = M.clients(bufnr)[1]
  return client and client.initialized and client or nil
end

--- A buffer's document, as the server knows it.
function M.document(bufnr)
  if bufnr == 0 then bufnr = vim.api.nvim_get_current_buf() end
  return { uri = unnamed.attached(bufnr) and unnamed.uri(bufnr) or vim.uri_from_bufnr(bufnr) }
end

--- The version of a buffer's text that the server knows.
function M.version(bufnr) return unnamed.version(bufnr) or vim.lsp.util.buf_versions[bufnr] end

--- Runs a command of the server; `done` gets its result.
function M.execute(command, client_id, done)
  local client = vim.lsp.get_client_by_id(client_id)
  if not client then return end
  local params = { command = command.command, arguments = command.arguments }
  M.request(client, 'workspace/executeCommand', params, function(failed, result)
    if done and failed then M.say(failed.message or 'the server refused', vim.log.levels.ERROR) end
    if done and not failed then done(result) end
  end)
end

-- Lets every question and its answer pass by the display, whoever asks.
local function listen(client)
  local request = client.rpc.request
  client.rpc.request = function(method, params, callback, ...)
    if method ~= 'textDocument/inlineCompletion' then return request(method, params, callback, ...) end
    local display, suggestion = require('taper.display'), require('taper.suggestion')
    local place = suggestion.place()
    local here = params.textDocument.uri == M.document(place.bufnr).uri and params.position.line == place.row
    local why = M.asking
    return request(method, params, function(failed, result, ...)
      if not failed then
        require('taper.status').answered(client)
        if not display.received(client, here and place or nil, result, why) then result = { items = {} } end
      end
      return callback(failed, result, ...)
    end, ...)
  end
end

-- The server ended by itself: says so, and starts it again.
local function crashed(code, signal)
  local now = vim.uv.now() / 1000
  crashes = vim.tbl_filter(function(at) return now - at < SECONDS end, crashes)
  table.insert(crashes, now)
  require('taper.display').clear()
  if #crashes > TIMES then
    crashes = {}
    local message = 'the server ended %d times in %d minutes and stays off; see `:Taper log`, then `:Taper restart`'
    require('taper.status').broken = true
    return M.say(message:format(TIMES + 1, SECONDS / 60), vim.log.levels.ERROR)
  end
  M.say(('the server ended (code %d, signal %d), starting it again'):format(code, signal), vim.log.levels.WARN)
  M.attach_all()
end

-- Starts the program; `run.id` becomes the client's. Neovim would tell of a crash in a message that waits for a key:
-- that is said above, shorter. And the next server must be there before Neovim clears up behind this one: a key that
-- finds a buffer without any makes Neovim 0.12 stop watching that buffer for good.
local function spawn(argv, run)
  return function(dispatchers)
    local watched = vim.tbl_extend('force', dispatchers, {
      on_exit = function(code, signal, ...)
        local asked_for = run.id and stopping[run.id] or code == 0 and signal == 0
        vim.schedule(function()
          if not asked_for and vim.v.exiting == vim.NIL then crashed(code, signal) end
        end)
        return dispatchers.on_exit(0, 15, ...)
      end,
    })
    return vim.lsp.rpc.start(argv, watched, { cwd = vim.fn.getcwd() })
  end
end

local function wanted(bufnr)
  local used = config.used
  if not vim.api.nvim_buf_is_loaded(bufnr) or vim.bo[bufnr].buftype ~= '' then return false end
  local kind = vim.bo[bufnr].filetype
  -- Nothing says what it is going to be.
  if kind == '' and vim.api.nvim_buf_get_name(bufnr) == '' then return false end
  if used.filetypes and not vim.tbl_contains(used.filetypes, kind) then return false end
  if vim.tbl_contains(used.exclude, kind) then return false end
  return not used.enabled or used.enabled(bufnr) == true
end

local function attached(bufnr)
  buffers[bufnr] = vim.bo[bufnr].filetype
  require('taper.display').attach(bufnr)
  require('taper.cursor').attach(bufnr)
end

-- Tells a client of the projects that it has not been told of.
local function tell_roots(client)
  local offered = vim.tbl_get(client.server_capabilities, 'workspace', 'workspaceFolders', 'changeNotifications')
  for root, known in pairs(roots[client.id] or {}) do
    if not known and offered then
      roots[client.id][root] = true
      M.notify(client, 'workspace/didChangeWorkspaceFolders', {
        event = { added = { { uri = vim.uri_from_fname(root), name = root } }, removed = {} },
      })
    end
  end
end

-- What is handed to vim.lsp.start().
local function start_config(program, bufnr)
  local root = vim.fs.root(bufnr, config.used.root_markers)
  local own, run = config.used.server, {}
  local capabilities = vim.lsp.protocol.make_client_capabilities()
  capabilities.textDocument.inlineCompletion = { dynamicRegistration = false }
  capabilities.experimental = { taper = { status = true, accepted = true, refresh = true } }
  return vim.tbl_deep_extend('force', {
    name = 'taper',
    cmd = spawn(M.command(program), run),
    root_dir = root,
    init_options = written(),
    capabilities = capabilities,
    handlers = {
      ['taper/status'] = function(_, result, context)
        require('taper.status').received(context.client_id, result)
      end,
      ['taper/refresh'] = function(_, result, context)
        require('taper.display').more(vim.lsp.get_client_by_id(context.client_id), result)
      end,
      ['window/showMessage'] = function(_, result, context)
        require('taper.status').told(context.client_id, result)
        local levels = { vim.log.levels.ERROR, vim.log.levels.WARN, vim.log.levels.INFO, vim.log.levels.DEBUG }
        M.say(result.message, levels[result.type])
      end,
    },
  }, own, {
    on_init = function(client, result)
      run.id = client.id
      listen(client)
      if not config.native() and vim.lsp.inline_completion then
        -- It may be on for other servers; this one's suggestions are not to be shown twice.
        vim.lsp.inline_completion.enable(false, { client_id = client.id })
      end
      require('taper.status').started(client)
      tell_roots(client)
      unnamed.ready()
      if own.on_init then own.on_init(client, result) end
    end,
    on_attach = function(client, buffer)
      attached(buffer)
      if own.on_attach then own.on_attach(client, buffer) end
    end,
    on_exit = function(code, signal, client_id)
      stopping[client_id], roots[client_id] = nil, nil
      require('taper.status').set(client_id, nil)
      if own.on_exit then own.on_exit(code, signal, client_id) end
    end,
  })
end

-- The running client, or a new one, attached to no buffer.
local function start(options)
  local client = M.clients()[1]
  if client then return client.id end
  if has11 then return vim.lsp.start(options, { attach = false, reuse_client = function() return false end }) end
  return (vim.lsp.start_client(options))
end

-- A buffer is in this project, which a client may not know of: it began in another one.
local function join(client_id, root, began)
  local known = roots[client_id] or {}
  roots[client_id] = known
  if not root or known[root] ~= nil then return end
  known[root] = began
  local client = vim.lsp.get_client_by_id(client_id)
  if client and client.initialized then tell_roots(client) end
end

--- Takes the server away from a buffer.
function M.detach(bufnr)
  unnamed.detach(bufnr)
  for _, client in ipairs(M.clients(bufnr)) do
    vim.lsp.buf_detach_client(bufnr, client.id)
  end
end

--- Attaches the server to a buffer if it is one for it, starting it first if need be.
function M.attach(bufnr)
  local is_attached = #vim.lsp.get_clients({ name = 'taper', bufnr = bufnr }) > 0
  if not wanted(bufnr) then
    if is_attached or unnamed.attached(bufnr) then
      M.detach(bufnr)
      require('taper.display').leave(bufnr)
      buffers[bufnr] = nil
    end
    return
  end
  local program, problem = M.program()
  if not program then
    if told ~= problem then M.say(problem, vim.log.levels.WARN) end
    told = problem
    return
  end
  told = nil
  local options = start_config(program, bufnr)
  if unnamed.is(bufnr) then
    local client_id = start(options)
    if not client_id then return end
    if not unnamed.attached(bufnr) or buffers[bufnr] ~= vim.bo[bufnr].filetype then unnamed.attach(bufnr) end
    return attached(bufnr)
  end
  -- It has a name now.
  unnamed.detach(bufnr)
  -- The server hears of a language when it hears of a document.
  if is_attached and buffers[bufnr] and buffers[bufnr] ~= vim.bo[bufnr].filetype then M.detach(bufnr) end
  local running = M.clients()[1]
  if running then join(running.id, options.root_dir, false) end
  local client_id = vim.lsp.start(options, {
    bufnr = bufnr,
    -- One that has not answered yet, too.
    reuse_client = function(client) return client.name == 'taper' and not stopped(client) end,
  })
  if client_id and not running then join(client_id, options.root_dir, true) end
end

--- A buffer is about to get another name: the server forgets it under the old one.
function M.unname(bufnr)
  if not buffers[bufnr] then return end
  M.detach(bufnr)
  -- Whether it got one or not.
  vim.schedule(function() M.rename(bufnr) end)
end

--- A buffer may have got another name.
function M.rename(bufnr)
  if not buffers[bufnr] or not vim.api.nvim_buf_is_valid(bufnr) then return end
  local is_told = unnamed.attached(bufnr) and unnamed.is(bufnr) or #vim.lsp.get_clients({ name = 'taper', bufnr = bufnr }) > 0
  if not is_told then M.attach(bufnr) end
end

--- Attaches it wherever it was or should be.
function M.attach_all()
  require('taper.status').broken = false
  for _, bufnr in ipairs(vim.api.nvim_list_bufs()) do
    if buffers[bufnr] or (vim.api.nvim_buf_is_loaded(bufnr) and vim.bo[bufnr].filetype ~= '') then M.attach(bufnr) end
  end
end

--- Ends the server; `after` is called once it has ended.
function M.stop(after)
  local clients = M.clients()
  for _, client in ipairs(clients) do
    stopping[client.id] = true
    if has11 then client:stop() else client.stop() end
  end
  if not after then return end
  local polls, timer = 0, vim.uv.new_timer()
  timer:start(20, 20, vim.schedule_wrap(function()
    polls = polls + 1
    local running = vim.tbl_filter(function(client) return vim.lsp.get_client_by_id(client.id) ~= nil end, clients)
    if timer:is_closing() or (#running > 0 and polls < 150) then return end
    timer:close()
    after()
  end))
end

return M
