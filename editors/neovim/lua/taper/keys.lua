-- Insert mode keys that act only while a suggestion is shown, and are else what they were before.
-- It knows nothing of what the actions do.
local config = require('taper.config')
local menu = require('taper.menu')

local M = {}

-- Actions that do something without a suggestion too.
local always = { trigger = true }
-- What was mapped by `map`: action to key.
M.mapped = {}

-- What a name stands for where nothing was mapped: the key itself.
local PLAIN = 'taper: as it was'

-- Keeps what a key did before under a name of its own, as it was: expr, callback, remap and all. What was not mapped has a
-- name too: our mapping must never yield its own key, because nvim-cmp and blink.cmp, whose mappings of the key call ours,
-- have what it yields mapped again, and the key would go round for ever.
local function keep(key, name)
  local raw = vim.api.nvim_replace_termcodes(key, true, true, true)
  for _, old in ipairs(vim.api.nvim_get_keymap('i')) do
    if (old.lhsraw == raw or old.lhsrawalt == raw) and not (old.desc or ''):find('^taper: ') then
      -- A mapping to itself and more is not mapped again at its beginning; under another name it would be.
      local itself = type(old.rhs) == 'string' and vim.startswith(old.rhs:lower(), old.lhs:lower())
      old.lhs, old.lhsraw, old.lhsrawalt = name, vim.api.nvim_replace_termcodes(name, true, true, true), nil
      if itself then old.noremap = 1 end
      vim.fn.mapset('i', false, old)
      return
    end
  end
  vim.keymap.set('i', name, key, { desc = PLAIN })
end

--- Maps the keys of the options. What they were mapped to before is what they do while nothing is shown.
function M.map()
  for action, key in pairs(M.mapped) do
    pcall(vim.keymap.del, 'i', key)
    local kept = '<Plug>(taper-before-' .. action .. ')'
    local before = vim.fn.maparg(kept, 'i', false, true)
    if next(before) and before.desc ~= PLAIN then
      before.lhs, before.lhsraw, before.lhsrawalt = key, vim.api.nvim_replace_termcodes(key, true, true, true), nil
      vim.fn.mapset('i', false, before)
    end
    pcall(vim.keymap.del, 'i', kept)
  end
  M.mapped = {}
  for action, key in pairs(config.used.keys) do
    if key then
      local kept = '<Plug>(taper-before-' .. action .. ')'
      keep(key, kept)
      -- As Neovim's own bytes: an older nvim-cmp hands on what a mapping yields without replacing key names in it.
      local act, before = vim.keycode(("<Cmd>lua require('taper').%s()<CR>"):format(action)), vim.keycode(kept)
      vim.keymap.set('i', key, function()
        local yields = action == 'accept' and not config.used.accept_over_menu and menu.open()
        local mine = not yields and (require('taper.display').shown() or always[action] and require('taper').active(0))
        return mine and act or before
        -- Remapped, so that what was kept is found.
      end, { expr = true, remap = true, replace_keycodes = false, desc = 'taper: ' .. action:gsub('_', ' ') })
      M.mapped[action] = key
    end
  end
end

return M
