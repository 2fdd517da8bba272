#!/bin/sh
# A directory as an archive service of type "command", in POSIX shell with the coreutils.
#
#   [services.example]
#   type = "command"
#   command = ["/usr/local/bin/directory-plugin.sh", "/mnt/archive"]
#   spool = "/var/spool/omero-archive"
#
# No JSON is parsed: requests are flat, their values are numbers, digests, paths of plain letters and percent-encoded
# keys, so everything up to the next quote is the value. Objects lie under their percent-encoded keys, which never
# have a space, a quote or a star. A name that got too long by that goes into directories that end in "%-".
set -uf
export LC_ALL=C
objects=$1/objects
incoming=$1/incoming
temporary=$incoming/$(uname -n).$$ # several workers may be on several machines

# The value of a field of the request, in $value.
field() {
    value=${line#*\""$1"\":}
    value=${value#\"}
    value=${value%%[\",\}]*}
}

# The keys of the request, in $keys, for a `for` loop: there is nothing in them that the shell would touch.
all_keys() {
    keys=${line#*\"keys\":[}
    keys=$(printf '%s' "${keys%%]*}" | tr -d '"' | tr ',' ' ')
}

# The path of a key, in $place.
place() {
    place=$objects/$(printf '%s\n' "$1" | sed -e 's#[^/]\{240\}#&%-/#g' -e 's#%-//#/#g' -e 's#%-/$##')
}

say() { printf '{"id":%s,%s}\n' "$id" "$1"; }
refuse() { say "\"error\":\"$1\",\"message\":\"$2\""; }

# Whether there is an object under a key, in $found: "yes", "no" only if the system says so, or "cannot tell".
look() {
    place "$1"
    found=yes
    [ -f "$place" ] && return
    case $(ls -d -- "$place" 2>&1) in
        *"No such file or directory" | *"Not a directory") found=no ;;
        *) found="cannot tell" ;;
    esac
}

# The same, and the answer if it is not there.
is_there() {
    look "$1"
    case $found in
        yes) return 0 ;;
        no) refuse missing "there is no such object" ;;
        *) refuse unavailable "it cannot be looked at" ;;
    esac
    return 1
}

put() {
    field file; file=$value
    field sha256; sha256=$value
    field key; place "$value"
    if [ -f "$place" ]; then
        put_again
        return
    fi
    { cp -- "$file" "$temporary" && sync -- "$temporary"; } || { refuse failed "it could not be copied"; return; }
    arrived=$(sha256sum <"$temporary")
    [ "${arrived%% *}" = "$sha256" ] || { refuse failed "other bytes arrived"; return; }
    mkdir -p -- "${place%/*}" || { refuse failed "its directory could not be made"; return; }
    if ln -- "$temporary" "$place" 2>/dev/null; then # unlike mv it never replaces anything
        stored false
    else
        put_again
    fi
    rm -f -- "$temporary"
}

# Something lies there, or `ln` failed for another reason: then there is nothing to compare.
put_again() {
    cmp -s -- "$file" "$place"
    case $? in
        0) stored true ;;
        1) refuse exists "other content lies there" ;;
        *) refuse failed "it got no name there, and what lies there cannot be read" ;;
    esac
}

# The answer when the object lies there; it must survive a crash of the machine now.
stored() {
    if sync -- "$place" "${place%/*}"; then
        say "\"ok\":true,\"was_there\":$1"
    else
        refuse failed "it could not be synced"
    fi
}

open() {
    field file; file=$value
    field key
    is_there "$value" || return
    if cp -- "$place" "$file"; then
        say "\"ok\":true,\"size\":$(($(wc -c <"$place")))"
    else
        refuse unavailable "it could not be copied"
    fi
}

status() {
    all_keys
    for key in $keys; do
        look "$key"
        if [ "$found" = yes ]; then
            size=$(($(wc -c <"$place")))
            say "\"key\":\"$key\",\"present\":\"yes\",\"durable\":\"yes\",\"staged\":\"online\",\"size\":$size"
        else
            say "\"key\":\"$key\",\"present\":\"$found\",\"durable\":\"$found\",\"staged\":\"cannot tell\""
        fi
    done
    say '"ok":true'
}

stage() {
    all_keys
    for key in $keys; do
        is_there "$key" || return
    done
    say '"ok":true'
}

delete() {
    field key
    is_there "$value" || return
    if rm -- "$place"; then
        above=.${place#"$objects"}
        (cd "$objects" && rmdir -p -- "${above%/*}" 2>/dev/null) # as far as they are empty
        say '"ok":true'
    else
        refuse unavailable "it could not be deleted"
    fi
}

list() {
    field prefix
    # Into a file first: a listing that broke off would look like a short one.
    find "$objects" -type f -printf '%s %P\n' >"$temporary" || { refuse unavailable "it cannot be listed"; return; }
    sed 's#%-/##g' "$temporary" | awk -v id="$id" -v prefix="$value" '
        substr($2, 1, length(prefix)) == prefix { count++; printf "{\"id\":%s,\"key\":\"%s\",\"size\":%s}\n", id, $2, $1 }
        END { printf "{\"id\":%s,\"ok\":true,\"count\":%d}\n", id, count }'
}

while read -r line; do
    field id; id=$value
    field verb; verb=$value
    case $verb in
        hello) say '"ok":true,"version":1,"name":"a directory, by a shell"'; continue ;;
        init) mkdir -p -- "$objects" "$incoming" ;; # what went wrong is told below
    esac
    # A mount that is not there: then nothing is known of any object.
    [ -d "$objects" ] || { refuse unavailable "it is not mounted, or init was never run"; continue; }
    case $verb in
        init) say '"ok":true' ;;
        put | open | status | stage | delete | list) "$verb" ;;
        check) say '"fine":true,"text":"the directory is there"'; say '"ok":true' ;;
        *) refuse unavailable "what is $verb?" ;;
    esac
done
