-- What luacheck is to know of Neovim.
std = 'luajit'
globals = { 'vim' }
max_line_length = 130
