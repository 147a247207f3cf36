#!/bin/sh
# SPDX-License-Identifier: MIT OR Apache-2.0
#
# The C daemon executes this on a live update, in place of a new daemon: it lets a test see the dump and exchange it,
# and then becomes the new daemon. The process id, the environment and the open descriptors stay the same throughout.
echo > "$XENSTORED_ROOTDIR/live-update-dumped"
read -r answer < "$XENSTORED_ROOTDIR/live-update-go" && exec "$STOCK_XENSTORED" "$@"
echo "live update: given up before the new daemon was started" >&2
exit 1
