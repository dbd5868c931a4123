-- Whether a completion menu is open: Neovim's own, nvim-cmp's or blink.cmp's.
-- It knows nothing of keys, and loads neither of them.
local M = {}

--- True while one is.
function M.open()
  if vim.fn.pumvisible() == 1 then return true end
  local cmp, blink = package.loaded['cmp'], package.loaded['blink.cmp']
  if cmp and cmp.visible and cmp.visible() then return true end
  local visible = blink and (blink.is_menu_visible or blink.is_visible)
  return visible and visible() or false
end

return M
