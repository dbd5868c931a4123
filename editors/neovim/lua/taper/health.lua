-- `:checkhealth taper`: what is there, what is missing, and what to do about it.
-- It knows nothing that the rest of the plugin does not tell it.
local M = {}

local function server(health)
  local found, problem = require('taper.server').program()
  if not found then
    health.error(problem)
    return
  end
  local version = vim.system({ found, '--version' }, { text = true, timeout = 5000 }):wait()
  if version.code ~= 0 then
    return health.error(('%s does not run: %s'):format(found, vim.trim(version.stderr or '')))
  end
  health.ok(('%s, %s'):format(found, vim.trim(version.stdout)))
  local models = vim.system({ found, 'models', '--here' }, { text = true, timeout = 5000 }):wait()
  local here = vim.trim(models.stdout or '')
  if models.code ~= 0 then
    health.warn('`taper models --here` failed: ' .. vim.trim(models.stderr or ''))
  elseif here == '' then
    local remedy = 'It is fetched when the first file is opened, or now: `:Taper pull`'
    health.warn('no model is on this machine yet', { remedy })
  else
    health.ok('models here:\n' .. here)
  end
  health.info('log: ' .. require('taper.server').log())
end

local function clients(health)
  local running = require('taper.server').clients()
  if #running == 0 then
    return health.info('the server does not run: it starts with the first file that has a file type')
  end
  for _, client in ipairs(running) do
    local buffers = vim.tbl_keys(client.attached_buffers)
    local state = require('taper.status').of(buffers[1]) or {}
    local about = { state.state, state.message, state.model, state.device }
    health.ok(('it runs: %s; %d buffers'):format(table.concat(vim.tbl_values(about), ', '), #buffers))
    if not client.server_capabilities.inlineCompletionProvider then
      health.error('the server offers no inline completion: it is too old for this plugin')
    end
  end
end

local function keys(health)
  for action, key in pairs(require('taper.keys').mapped) do
    local now = vim.fn.maparg(key, 'i', false, true)
    if (now.desc or ''):find('^taper: ') then
      health.ok(('%s: %s'):format(key, action:gsub('_', ' ')))
    else
      local whose = now.desc or (type(now.rhs) == 'string' and now.rhs) or 'a function'
      local how = now.buffer == 1 and 'in this buffer' or 'after setup()'
      health.warn(('%s is mapped %s to %s'):format(key, how, whose), {
        'That is well if it hands the key on while it has no use for it, as nvim-cmp and blink.cmp do',
        ("Otherwise choose another: require('taper').setup({ keys = { %s = '<M-l>' } })"):format(action),
      })
    end
  end
end

--- Called by :checkhealth.
function M.check()
  local health, config = vim.health, require('taper.config')
  health.start('taper: Neovim')
  if vim.fn.has('nvim-0.10') == 0 then return health.error('Neovim 0.10 or newer is needed') end
  local drawn = config.native() and 'vim.lsp.inline_completion shows suggestions'
    or 'the plugin shows suggestions itself'
  health.ok(('Neovim %s: %s'):format(tostring(vim.version()), drawn))
  for _, problem in ipairs(config.problems) do
    health.error(problem)
  end
  health.start('taper: server')
  server(health)
  clients(health)
  health.start('taper: keys')
  keys(health)
  local cmp = package.loaded['cmp.config']
  local ghost = cmp and cmp.get and cmp.get().experimental and cmp.get().experimental.ghost_text
  if ghost then
    health.warn('nvim-cmp shows ghost text of its own at the same place', { 'experimental = { ghost_text = false }' })
  end
end

return M
