#!/bin/sh
# Gives everybody who uses the store a key of their own, with no more rights than they need. Runs
# once, beside the server, as its root user, whom nobody else is. Safe to run again.
set -eu

mc alias set store "http://$MINIO_ENDPOINT" "$MINIO_ROOT_USER" "$MINIO_ROOT_PASSWORD" >/dev/null

give() { # name of the policy, key, secret
    sed "s/BUCKET/$FULFILLMENT_BUCKET/g" "/setup/$1.json" >"/tmp/$1.json"
    mc admin policy create store "$1" "/tmp/$1.json"
    mc admin user add store "$2" "$3"
    # attaching twice is an error, and no harm
    mc admin policy attach store "$1" --user "$2" || mc admin user info store "$2" | grep -q "$1"
}

give service "$STORE_SERVICE_USER" "$STORE_SERVICE_PASSWORD"
give look "$STORE_EXPORTER_USER" "$STORE_EXPORTER_PASSWORD"
give look "$STORE_LOOK_USER" "$STORE_LOOK_PASSWORD"
give change "$STORE_CHANGE_USER" "$STORE_CHANGE_PASSWORD"
