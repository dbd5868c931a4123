-- One suggestion: where it belongs, whether it still fits what was typed since, and its words and lines.
-- It knows nothing of servers or of how a suggestion is shown.
local M = {}

--- Where the cursor of the current window is: a row from 0, the line before and after it, the buffer's length.
function M.place()
  local row, column = unpack(vim.api.nvim_win_get_cursor(0))
  local line = vim.api.nvim_get_current_line()
  return {
    bufnr = vim.api.nvim_get_current_buf(),
    row = row - 1,
    before = line:sub(1, column),
    after = line:sub(column + 1),
    lines = vim.api.nvim_buf_line_count(0),
  }
end

-- A column as the protocol counts it, in bytes of the line.
local function byte(line, character, encoding)
  if encoding == 'utf-8' then return math.min(character, #line) end
  if vim.fn.has('nvim-0.11') == 1 then return vim.str_byteindex(line, encoding, character, false) end
  local found, index = pcall(vim.str_byteindex, line, character, encoding == 'utf-16')
  return found and index or #line
end

--- Reads an item that was asked for at `place`; nil if it is none that can be shown.
function M.read(item, place, client)
  local text = item.insertText
  -- A snippet's placeholders are never asked for: taper suggests plain text.
  if type(text) ~= 'string' then return nil end
  local start, stop = #place.before, #place.before
  if item.range then
    if item.range.start.line ~= place.row or item.range['end'].line ~= place.row then return nil end
    local line = place.before .. place.after
    start = byte(line, item.range.start.character, client.offset_encoding)
    stop = byte(line, item.range['end'].character, client.offset_encoding)
    if start > #place.before or stop < #place.before then return nil end
  end
  return {
    place = place,
    -- What stands between the start of the range and the cursor already.
    head = place.before:sub(start + 1),
    -- How many bytes behind the cursor it replaces.
    tail = stop - #place.before,
    text = (text:gsub('\r\n?', '\n')),
    command = item.command ~= vim.NIL and item.command or nil,
    client_id = client.id,
  }
end

--- What is still to be inserted at the cursor, if only the suggestion's own beginning was typed since; else nil.
function M.rest(item)
  local now, then_ = M.place(), item.place
  if now.bufnr ~= then_.bufnr or now.row ~= then_.row or now.lines ~= then_.lines or now.after ~= then_.after then
    return nil
  end
  if not vim.startswith(now.before, then_.before) then return nil end
  local typed = item.head .. now.before:sub(#then_.before + 1)
  if #typed >= #item.text or not vim.startswith(item.text, typed) then return nil end
  return item.text:sub(#typed + 1)
end

--- The first word, with what separates it from the cursor; line ends count as blanks.
function M.word(rest)
  local word = vim.fn.matchstr(rest, [[^\_s*\%(\k\+\|\%(\k\@!\S\)\+\)]])
  return word ~= '' and word or rest
end

--- The rest of this line; at its end, the line end and the whole next one.
function M.line(rest)
  return rest:match('^\n*[^\n]+') or rest
end

--- Puts `piece`, the beginning of `rest`, into the buffer; undone by itself. Returns what remains, if anything.
function M.insert(item, rest, piece)
  local place = M.place()
  local last = #piece == #rest
  local lines = vim.split(piece, '\n', { plain = true })
  local column, tail = #place.before, last and item.tail or 0
  -- Undo takes back the suggestion and leaves what was typed.
  vim.cmd('let &undolevels = &undolevels')
  vim.api.nvim_buf_set_text(place.bufnr, place.row, column, place.row, column + tail, lines)
  local at = (#lines == 1 and column or 0) + #lines[#lines]
  vim.api.nvim_win_set_cursor(0, { place.row + #lines, at })
  vim.cmd('let &undolevels = &undolevels')
  if last then return nil end
  local remains = vim.tbl_extend('force', item, { place = M.place(), head = '', text = rest:sub(#piece + 1) })
  return remains
end

return M
