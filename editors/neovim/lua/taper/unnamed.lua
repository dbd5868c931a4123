-- Buffers without a file name: Neovim would tell the server of all of them under one and the same URI, so the plugin tells
-- of each itself, under a URI of its own.
-- It knows nothing of how a suggestion is shown.
local M = {}

-- More is not code that somebody is typing, and it is sent whole.
local LONGEST = 1024 * 1024

-- By buffer: the version that the server knows; 0 until it does.
local versions = {}

local function server() return require('taper.server') end

--- Whether a buffer has no name, and Neovim is to leave it to us.
function M.is(bufnr)
  return not require('taper.config').native() and vim.api.nvim_buf_is_valid(bufnr) and vim.api.nvim_buf_get_name(bufnr) == ''
end

--- The URI of such a buffer.
function M.uri(bufnr) return 'untitled:Untitled-' .. bufnr end

--- Whether the server is told of a buffer here.
function M.attached(bufnr) return versions[bufnr] ~= nil end

--- The version of the text that the server knows.
function M.version(bufnr) return versions[bufnr] end

local function text(bufnr) return table.concat(vim.api.nvim_buf_get_lines(bufnr, 0, -1, false), '\n') .. '\n' end

local function tell(method, bufnr, params)
  local client = server().client(bufnr)
  if not client then return end
  params.textDocument = vim.tbl_extend('force', params.textDocument or {}, { uri = M.uri(bufnr) })
  server().notify(client, method, params)
end

-- The whole text, as a new document of this language.
local function open(bufnr)
  if versions[bufnr] ~= 0 or vim.api.nvim_buf_get_offset(bufnr, vim.api.nvim_buf_line_count(bufnr)) > LONGEST then return end
  versions[bufnr] = 1
  tell('textDocument/didOpen', bufnr, {
    textDocument = { languageId = vim.bo[bufnr].filetype, version = 1, text = text(bufnr) },
  })
end

local function changed(bufnr)
  local version = versions[bufnr]
  if not version or version == 0 then return end
  versions[bufnr] = version + 1
  tell('textDocument/didChange', bufnr, {
    textDocument = { version = version + 1 },
    contentChanges = { { text = text(bufnr) } },
  })
end

--- Begins to tell of a buffer, once the server is ready; of one that it knows, in which language it is now.
function M.attach(bufnr)
  local known = M.attached(bufnr)
  if known then M.close(bufnr) end
  versions[bufnr] = 0
  if not known then
    vim.api.nvim_buf_attach(bufnr, false, {
      on_lines = function()
        if not M.attached(bufnr) then return true end
        changed(bufnr)
      end,
      on_reload = function() changed(bufnr) end,
      on_detach = function() M.detach(bufnr) end,
    })
  end
  if server().client(bufnr) then open(bufnr) end
end

--- The server does not know a buffer any more.
function M.close(bufnr)
  if (versions[bufnr] or 0) > 0 then tell('textDocument/didClose', bufnr, {}) end
end

--- Tells of a buffer no longer.
function M.detach(bufnr)
  if not M.attached(bufnr) then return end
  M.close(bufnr)
  versions[bufnr] = nil
end

--- A server is ready: it is told of all.
function M.ready()
  for bufnr in pairs(versions) do
    versions[bufnr] = 0
    if vim.api.nvim_buf_is_loaded(bufnr) then
      open(bufnr)
      require('taper.display').attach(bufnr)
    end
  end
end

return M
