-- The command :Taper and the <Plug> keys; everything else is loaded when it is needed.
-- It knows nothing of how any of it works.
if vim.g.loaded_taper then return end
vim.g.loaded_taper = true

vim.api.nvim_create_user_command('Taper', function(call) require('taper.command').run(call) end, {
  nargs = '*',
  desc = 'Steer taper: :Taper with completion lists what it can do',
  complete = function(...) return require('taper.command').complete(...) end,
})

for name, desc in pairs({
  accept = 'Accept the suggestion',
  accept_word = 'Accept the next word of the suggestion',
  accept_line = 'Accept the next line of the suggestion',
  next = 'Show the next suggestion',
  previous = 'Show the previous suggestion',
  dismiss = 'Dismiss the suggestion',
  trigger = 'Ask for a suggestion',
}) do
  local lhs = '<Plug>(taper-' .. name:gsub('_', '-') .. ')'
  vim.keymap.set('i', lhs, ("<Cmd>lua require('taper').%s()<CR>"):format(name), { desc = 'taper: ' .. desc })
end
