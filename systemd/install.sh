#!/bin/sh
# Installs this checkout under /opt/cistern with its units, user, folders and the `cistern` command. Doing it again upgrades.
#   install.sh [--agent] [--controller] [--root DIR] [--node-modules DIR]
# Without --agent and --controller both are installed. --root stages everything below DIR (for packages and images) and leaves the
# running system alone. --node-modules takes the npm packages from a folder (`npm ci` made it on another machine of this kind) where
# no npm registry can be reached. Existing files in /etc/cistern are kept. Services are not started: the last lines say how.
set -eu

usage() {
  echo "usage: $0 [--agent] [--controller] [--root DIR] [--node-modules DIR]" >&2
  exit 2
}

root=
modules=
parts=
while [ $# -gt 0 ]; do
  case $1 in
    --agent | --controller) parts="$parts ${1#--}" ;;
    --root)
      [ $# -gt 1 ] || usage
      root=${2%/}
      shift
      ;;
    --node-modules)
      [ $# -gt 1 ] || usage
      modules=$(cd "$2" && pwd -P)
      shift
      ;;
    *) usage ;;
  esac
  shift
done
parts=${parts:-agent controller}

source=$(cd "$(dirname "$0")/.." && pwd)
target=/opt/cistern
if [ -z "$root" ] && [ "$(id -u)" != 0 ]; then
  echo "install.sh writes to $target, /etc and /usr/local/bin: run it as root" >&2
  exit 1
fi
if [ "$source" = "$target" ]; then
  echo "install.sh must be run from a checkout elsewhere, not from $target" >&2
  exit 1
fi
if [ -z "$modules" ] && ! command -v npm >/dev/null; then
  echo "npm is missing: install it (apt-get install npm), then try again" >&2
  exit 1
fi

# The new tree is made whole beside the old one, then takes its place.
new=$root$target.new
old=$root$target.old
rm -rf -- "$new" "$old"
mkdir -p -- "$new"
trap 'rm -rf -- "$new"' EXIT
(cd "$source" && cp -RP -- package.json package-lock.json .npmrc LICENSE README.md CHANGELOG.md agent controller shared systemd "$new/")
if [ -n "$modules" ]; then
  cp -RP -- "$modules" "$new/node_modules"
else
  (cd "$new" && npm ci --omit=dev --no-audit --no-fund --loglevel=error)
fi
chmod -R go+rX,go-w -- "$new"
if [ -z "$root" ]; then
  case $parts in
    *agent*) what=agent ;;
    *) what=controller ;;
  esac
  "$new/node_modules/.bin/node" "$new/shared/setup/setup.mjs" "$what"
fi
if [ -e "$root$target" ]; then mv -- "$root$target" "$old"; fi
mv -- "$new" "$root$target"
rm -rf -- "$old"

put() { # MODE NAME FILE: copies systemd/NAME to FILE
  install -D -m "$1" -- "$source/systemd/$2" "$root$3"
}
put 0644 sysusers.d/cistern.conf /etc/sysusers.d/cistern.conf
put 0644 tmpfiles.d/cistern.conf /etc/tmpfiles.d/cistern.conf
for part in $parts; do
  put 0644 "cistern-$part.service" "/etc/systemd/system/cistern-$part.service"
  [ -e "$root/etc/cistern/$part.json" ] || put 0644 "$part.json" "/etc/cistern/$part.json"
done
mkdir -p -- "$root/usr/local/bin"
command_of() { # NAME SCRIPT: a command that needs no other Node on this machine
  rm -f -- "$root/usr/local/bin/$1"
  printf '#!/bin/sh\nexec %s/node_modules/.bin/node %s/%s "$@"\n' "$target" "$target" "$2" >"$root/usr/local/bin/$1"
  chmod 0755 -- "$root/usr/local/bin/$1"
}
command_of cistern controller/cli/cistern.js
command_of cistern-agent agent/cistern-agent.js

[ -z "$root" ] || exit 0
systemd-sysusers /etc/sysusers.d/cistern.conf
systemd-tmpfiles --create /etc/tmpfiles.d/cistern.conf
if [ -d /run/systemd/system ]; then
  systemctl daemon-reload
  for part in $parts; do systemctl try-restart "cistern-$part.service"; done
fi
echo "cistern is installed in $target. Start it now and at every boot:"
for part in $parts; do echo "  systemctl enable --now cistern-$part"; done
