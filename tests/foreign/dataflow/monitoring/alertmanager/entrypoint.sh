#!/bin/sh
# Written for the tests: fills the placeholders in, as DataFlow's entrypoint does.
set -eu
here=$(dirname "$0")
cp "$here/alertmanager.yml.tmpl" "$here/alertmanager.yml"
for name in SLACK_WEBHOOK_URL TEAMS_WEBHOOK_URL EMAIL_TO EMAIL_FROM SMTP_SMARTHOST SMTP_USERNAME SMTP_PASSWORD; do
  eval "value=\${ALERTMANAGER_$name}"
  sed "s#__ALERTMANAGER_${name}__#$value#g" "$here/alertmanager.yml" > "$here/filled.yml"
  mv "$here/filled.yml" "$here/alertmanager.yml"
done
