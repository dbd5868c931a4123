-- Options of the plugin: what is written in `setup`, what was meant, and what is wrong with it.
-- It knows nothing of what the options do.
local M = {}

M.defaults = {
  -- The server: a path, or a whole command line. Without it: `taper` on the PATH, then in ~/.cargo/bin.
  cmd = nil,
  -- Options of the server, as in docs/configuration.md: { model = '…', ['latency-budget-ms'] = 500 }.
  options = {},
  -- File types with suggestions; nil is all of them.
  filetypes = nil,
  -- File types without.
  exclude = {},
  -- A function from a buffer to whether it gets suggestions, asked when the server would be attached.
  enabled = nil,
  -- What marks the top folder of a project.
  root_markers = { '.git' },
  -- Neovim's own ghost text (0.12), which asks 200 ms after a key, instead of the plugin's, which asks at once.
  native = false,
  -- Milliseconds without a key before the plugin's own ghost text asks.
  delay = 0,
  -- Insert mode keys; false for one: not mapped; false for all: none.
  keys = {
    accept = '<Tab>',
    accept_word = '<M-Right>',
    accept_line = '<M-C-Right>',
    next = '<M-]>',
    previous = '<M-[>',
    dismiss = '<C-]>',
    trigger = '<M-\\>',
  },
  -- Whether `keys.accept` accepts also while a completion menu is open.
  accept_over_menu = false,
  -- Merged into what is handed to vim.lsp.start(): on_attach, capabilities, settings, …
  server = {},
}

local kinds = {
  cmd = { 'string', 'table' },
  options = { 'table' },
  filetypes = { 'table' },
  exclude = { 'table' },
  enabled = { 'function' },
  root_markers = { 'table' },
  native = { 'boolean' },
  delay = { 'number' },
  keys = { 'table', 'boolean' },
  accept_over_menu = { 'boolean' },
  server = { 'table' },
}

M.used = vim.deepcopy(M.defaults)
-- What was wrong with what was written; `:checkhealth taper` shows it again.
M.problems = {}

--- Takes over what was written; what is wrong is told and left out, the rest applies.
function M.set(written)
  local used, problems = vim.deepcopy(M.defaults), {}
  for name, value in pairs(written or {}) do
    local kind = kinds[name]
    if not kind then
      table.insert(problems, ('`%s` is no option of setup(); they are %s'):format(name, table.concat(M.names(), ', ')))
    elseif not vim.tbl_contains(kind, type(value)) then
      table.insert(problems, ('`%s` must be a %s, not a %s'):format(name, table.concat(kind, ' or a '), type(value)))
    elseif name == 'native' and value and not vim.lsp.inline_completion then
      table.insert(problems, '`native` needs Neovim 0.12; the plugin shows suggestions itself')
    elseif name == 'keys' and type(value) == 'table' then
      for action, key in pairs(value) do
        if M.defaults.keys[action] == nil then
          table.insert(problems, ('`keys.%s` is no action'):format(action))
        elseif key ~= false and type(key) ~= 'string' then
          table.insert(problems, ('`keys.%s` must be a key or false'):format(action))
        else
          used.keys[action] = key
        end
      end
    elseif name == 'keys' then
      used.keys = value and used.keys or {}
    else
      used[name] = value
    end
  end
  M.used, M.problems = used, problems
  for _, problem in ipairs(problems) do
    vim.notify('taper: ' .. problem, vim.log.levels.WARN)
  end
end

--- The options' names, sorted.
function M.names()
  local names = vim.tbl_keys(kinds)
  table.sort(names)
  return names
end

--- Whether Neovim itself shows the suggestions.
function M.native() return M.used.native end

return M
