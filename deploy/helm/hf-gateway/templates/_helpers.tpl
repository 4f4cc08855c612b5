{{- define "hf-gateway.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 40 | trimSuffix "-" }}
{{- end }}

{{- define "hf-gateway.fullname" -}}
{{- if .Values.fullnameOverride }}
{{- .Values.fullnameOverride | trunc 45 | trimSuffix "-" }}
{{- else if contains (include "hf-gateway.name" .) .Release.Name }}
{{- .Release.Name | trunc 45 | trimSuffix "-" }}
{{- else }}
{{- printf "%s-%s" .Release.Name (include "hf-gateway.name" .) | trunc 45 | trimSuffix "-" }}
{{- end }}
{{- end }}

{{- define "hf-gateway.selector" -}}
app.kubernetes.io/name: {{ include "hf-gateway.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "hf-gateway.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" }}
{{ include "hf-gateway.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- with .Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- define "hf-gateway.serviceAccount" -}}
{{- if .Values.serviceAccount.create }}
{{- default (include "hf-gateway.fullname" .) .Values.serviceAccount.name }}
{{- else }}
{{- default "default" .Values.serviceAccount.name }}
{{- end }}
{{- end }}

{{- define "hf-gateway.image" -}}
{{- $tag := .Values.image.tag }}
{{- if not $tag }}
{{- $tag = .Chart.AppVersion }}
{{- with .Values.image.flavour }}{{ $tag = printf "%s-%s" $tag . }}{{ end }}
{{- end }}
{{- if .Values.image.digest }}
{{- printf "%s@%s" .Values.image.repository .Values.image.digest }}
{{- else }}
{{- printf "%s:%s" .Values.image.repository $tag }}
{{- end }}
{{- end }}

{{- define "hf-gateway.configMap" -}}
{{- default (include "hf-gateway.fullname" .) .Values.existingConfigMap }}
{{- end }}

{{- define "hf-gateway.claim" -}}
{{- if eq .Values.modelVolume.type "existingClaim" }}
{{- required "modelVolume.existingClaim names no claim" .Values.modelVolume.existingClaim }}
{{- else }}
{{- printf "%s-models" (include "hf-gateway.fullname" .) }}
{{- end }}
{{- end }}

{{/* The secrets of values that are set, as JSON. */}}
{{- define "hf-gateway.givenSecrets" -}}
{{- $given := dict }}
{{- range $name, $value := .Values.secrets }}{{ if $value }}{{ $_ := set $given $name $value }}{{ end }}{{ end }}
{{- toJson $given }}
{{- end }}

{{/* The variables that the External Secrets Operator brings, as JSON: {"HF_TOKEN": true}. */}}
{{- define "hf-gateway.externalNames" -}}
{{- $names := dict }}
{{- if .Values.externalSecrets.enabled }}
{{- range .Values.externalSecrets.data }}{{ $_ := set $names .secretKey true }}{{ end }}
{{- end }}
{{- toJson $names }}
{{- end }}

{{/* "true" where the variable of that name has a value from a Secret: (list $ "HF_GATEWAY_SERVER_REDIS" .Values.redis) */}}
{{- define "hf-gateway.hasUrl" -}}
{{- $top := index . 0 }}{{ $name := index . 1 }}{{ $setting := index . 2 }}
{{- $given := include "hf-gateway.givenSecrets" $top | fromJson }}
{{- $external := include "hf-gateway.externalNames" $top | fromJson }}
{{- $named := false }}
{{- range $top.Values.extraEnv }}{{ if eq .name $name }}{{ $named = true }}{{ end }}{{ end }}
{{- if or $setting.existingSecret $named (hasKey $given $name) (hasKey $external $name) }}true{{ end }}
{{- end }}

{{- define "hf-gateway.hasDatabase" -}}
{{- include "hf-gateway.hasUrl" (list . "HF_GATEWAY_SERVER_DATABASE" .Values.database) }}
{{- end }}

{{- define "hf-gateway.hasRedis" -}}
{{- include "hf-gateway.hasUrl" (list . "HF_GATEWAY_SERVER_REDIS" .Values.redis) }}
{{- end }}

{{/* Whether the database's URL comes from a Secret that this release makes. */}}
{{- define "hf-gateway.databaseIsOfRelease" -}}
{{- $name := "HF_GATEWAY_SERVER_DATABASE" }}
{{- $given := include "hf-gateway.givenSecrets" . | fromJson }}
{{- $external := include "hf-gateway.externalNames" . | fromJson }}
{{- if and (not .Values.database.existingSecret) (or (hasKey $given $name) (hasKey $external $name)) }}true{{ end }}
{{- end }}

{{- define "hf-gateway.urlEnv" -}}
{{- with .Values.database.existingSecret }}
- name: HF_GATEWAY_SERVER_DATABASE
  valueFrom: {secretKeyRef: {name: {{ . | quote }}, key: {{ $.Values.database.key | quote }}}}
{{- end }}
{{- with .Values.redis.existingSecret }}
- name: HF_GATEWAY_SERVER_REDIS
  valueFrom: {secretKeyRef: {name: {{ . | quote }}, key: {{ $.Values.redis.key | quote }}}}
{{- end }}
{{- end }}

{{/* What the server and the migration have in common. */}}
{{- define "hf-gateway.env" -}}
- name: HF_GATEWAY_HOME
  value: /var/lib/hf-gateway
- name: HF_HOME
  value: /var/lib/hf-gateway/huggingface
{{- include "hf-gateway.urlEnv" . }}
{{- with .Values.extraEnv }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- define "hf-gateway.envFrom" -}}
{{- if .Values.externalSecrets.enabled }}
- secretRef: {name: {{ include "hf-gateway.fullname" . }}-external}
{{- else if include "hf-gateway.givenSecrets" . | fromJson }}
- secretRef: {name: {{ include "hf-gateway.fullname" . }}}
{{- end }}
{{- range .Values.existingSecrets }}
- secretRef: {name: {{ . | quote }}}
{{- end }}
{{- with .Values.extraEnvFrom }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- define "hf-gateway.imagePullSecrets" -}}
{{- with .Values.imagePullSecrets }}
imagePullSecrets:
{{- range . }}
  - name: {{ . | quote }}
{{- end }}
{{- end }}
{{- end }}

{{- define "hf-gateway.placement" -}}
{{- with .Values.nodeSelector }}
nodeSelector: {{ toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.tolerations }}
tolerations: {{ toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.affinity }}
affinity: {{ toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.priorityClassName }}
priorityClassName: {{ . | quote }}
{{- end }}
{{- with .Values.runtimeClassName }}
runtimeClassName: {{ . | quote }}
{{- end }}
{{- with .Values.dnsConfig }}
dnsConfig: {{ toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.hostAliases }}
hostAliases: {{ toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{- define "hf-gateway.tomlKey" -}}
{{- if regexMatch "^[A-Za-z0-9_-]+$" . }}{{ . }}{{ else }}{{ toJson . }}{{ end }}
{{- end }}

{{/* A value as TOML on one line: JSON's texts, numbers and booleans are TOML's. */}}
{{- define "hf-gateway.tomlValue" -}}
{{- if kindIs "map" . -}}
{ {{ $first := true }}{{ range $key, $value := . }}{{ if not $first }}, {{ end }}{{ $first = false }}{{ include "hf-gateway.tomlKey" $key }} = {{ include "hf-gateway.tomlValue" $value }}{{ end }} }
{{- else if kindIs "slice" . -}}
[{{ range $n, $value := . }}{{ if $n }}, {{ end }}{{ include "hf-gateway.tomlValue" $value }}{{ end }}]
{{- else -}}
{{ toJson . }}
{{- end -}}
{{- end }}

{{/* Two levels of tables with headers, what is below them on one line each. */}}
{{- define "hf-gateway.toml" -}}
{{- range $section, $table := . }}
{{- $tables := dict }}
{{- range $key, $value := $table }}{{ if and (kindIs "map" $value) $value }}{{ $_ := set $tables $key $value }}{{ end }}{{ end }}
{{- if or (not $table) (ne (len $tables) (len $table)) }}
[{{ include "hf-gateway.tomlKey" $section }}]
{{- range $key, $value := $table }}{{ if not (hasKey $tables $key) }}
{{ include "hf-gateway.tomlKey" $key }} = {{ include "hf-gateway.tomlValue" $value }}
{{- end }}{{ end }}
{{ end }}
{{- range $name, $values := $tables }}
[{{ include "hf-gateway.tomlKey" $section }}.{{ include "hf-gateway.tomlKey" $name }}]
{{- range $key, $value := $values }}
{{ include "hf-gateway.tomlKey" $key }} = {{ include "hf-gateway.tomlValue" $value }}
{{- end }}
{{ end }}
{{- end }}
{{- end }}

{{/* Ends the rendering where two values contradict each other. */}}
{{- define "hf-gateway.check" -}}
{{- if and .Values.autoscaling.enabled .Values.keda.enabled }}
{{- fail "autoscaling.enabled and keda.enabled exclude each other: KEDA makes the HorizontalPodAutoscaler itself" }}
{{- end }}
{{- if and .Values.autoscaling.enabled (not (or .Values.autoscaling.targetInFlight .Values.autoscaling.targetCPU .Values.autoscaling.metrics)) }}
{{- fail "autoscaling.enabled needs targetInFlight, targetCPU or metrics" }}
{{- end }}
{{- if .Values.externalSecrets.enabled }}
{{- if not (or .Values.externalSecrets.data .Values.externalSecrets.dataFrom) }}
{{- fail "externalSecrets.enabled needs externalSecrets.data or externalSecrets.dataFrom" }}
{{- end }}
{{- $external := include "hf-gateway.externalNames" . | fromJson }}
{{- range $name, $_ := include "hf-gateway.givenSecrets" . | fromJson }}
{{- if hasKey $external $name }}
{{- fail (printf "secrets.%s and externalSecrets.data both have a value for %s; leave one of them out" $name $name) }}
{{- else if not (has $name (list "HF_MODEL_ID" "HF_ENDPOINT")) }}
{{- fail (printf "secrets.%s has a value although externalSecrets is on, where this chart renders no Secret; put it into externalSecrets.data" $name) }}
{{- end }}
{{- end }}
{{- end }}
{{- if dig "server" "database" "" .Values.config }}
{{- fail "config.server.database would stand in a ConfigMap; put the URL into a Secret, and its name into database.existingSecret" }}
{{- end }}
{{- if dig "server" "redis" "" .Values.config }}
{{- fail "config.server.redis would stand in a ConfigMap; put the URL into a Secret, and its name into redis.existingSecret" }}
{{- end }}
{{- if and .Values.existingConfigMap .Values.config }}
{{- fail "existingConfigMap and config both bring hf-gateway.toml; leave one of them out" }}
{{- end }}
{{- if and .Values.migration.enabled (eq .Values.migration.hook "helm") (include "hf-gateway.databaseIsOfRelease" .) }}
{{- fail "migration.hook helm runs before this release's own Secret exists; use database.existingSecret, or migration.hook none" }}
{{- end }}
{{- if and .Values.ingress.enabled (not .Values.ingress.hosts) }}
{{- fail "ingress.enabled needs ingress.hosts" }}
{{- end }}
{{- if and .Values.httpRoute.enabled (not .Values.httpRoute.parentRefs) }}
{{- fail "httpRoute.enabled needs httpRoute.parentRefs" }}
{{- end }}
{{- end }}

{{/* The names that callers have for this server, as JSON. */}}
{{- define "hf-gateway.hosts" -}}
{{- $name := include "hf-gateway.fullname" . }}
{{- $short := printf "%s.%s" $name .Release.Namespace }}
{{- $hosts := list $name $short (printf "%s.svc" $short) (printf "%s.svc.cluster.local" $short) }}
{{- if .Values.ingress.enabled }}{{ $hosts = concat $hosts .Values.ingress.hosts }}{{ end }}
{{- if .Values.httpRoute.enabled }}{{ $hosts = concat $hosts .Values.httpRoute.hostnames }}{{ end }}
{{- toJson ($hosts | uniq) }}
{{- end }}
