{{- /* First part of every object's name. A Service's name must begin with a letter, a release's need not. */ -}}
{{- define "sn17.fullname" -}}
{{- $name := toString (default .Release.Name .Values.fullnameOverride) -}}
{{- if not (regexMatch "^[a-z]" $name) }}{{ $name = printf "sn17-%s" $name }}{{ end -}}
{{- $name | trunc 40 | trimSuffix "-" -}}
{{- end -}}

{{- /* Labels that select a component's pods. Takes (dict "root" $ "component" name). */ -}}
{{- define "sn17.selector" -}}
app.kubernetes.io/name: sn17
app.kubernetes.io/instance: {{ .root.Release.Name | quote }}
app.kubernetes.io/component: {{ .component }}
{{- end -}}

{{- /* Labels of every object of a component. */ -}}
{{- define "sn17.labels" -}}
{{ include "sn17.selector" . }}
app.kubernetes.io/part-of: sn17
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service | quote }}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version | replace "+" "_" }}
{{- with .root.Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- /* Labels of a component's pods: no chart version, so that a new chart alone restarts nothing. */ -}}
{{- define "sn17.podLabels" -}}
{{ include "sn17.selector" . }}
app.kubernetes.io/part-of: sn17
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service | quote }}
{{- with .root.Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- /* Reference of one of the sn17 images. Takes (dict "root" $ "image" values "suffix" "-torch"). */ -}}
{{- define "sn17.image" -}}
{{- $registry := default .root.Values.global.imageRegistry .root.Values.image.registry -}}
{{- if and (empty $registry) (not .root.Values.image.preloaded) -}}
{{- fail "image.registry: name the registry that holds your sn17 images (none are published; `make images` builds them), or set image.preloaded=true when they are loaded into the nodes (kind, k3d), as values-laptop.yaml does" -}}
{{- end -}}
{{- $repository := ternary .image.repository (printf "%s/%s" (trimSuffix "/" $registry) .image.repository) (empty $registry) -}}
{{- if .image.digest -}}
{{ $repository }}@{{ .image.digest }}
{{- else -}}
{{ $repository }}:{{ default (printf "%s%s" (default .root.Chart.AppVersion .root.Values.image.tag) (default "" .suffix)) .image.tag }}
{{- end -}}
{{- end -}}

{{- /* Reference of an image of another project. */ -}}
{{- define "sn17.foreignImage" -}}
{{- if .digest -}}{{ .repository }}@{{ .digest }}{{- else -}}{{ .repository }}:{{ .tag }}{{- end -}}
{{- end -}}

{{- /* What every pod's spec begins with. Takes (dict "root" $ "account" name "token" bool "values" component values "gpu" bool). */ -}}
{{- define "sn17.podSpec" -}}
serviceAccountName: {{ .account | quote }}
automountServiceAccountToken: {{ .token }}
enableServiceLinks: false
{{- if and .root.Values.userNamespaces (not .gpu) }}
hostUsers: false
{{- end }}
securityContext:
  {{- toYaml .root.Values.podSecurityContext | nindent 2 }}
{{- with concat .root.Values.global.imagePullSecrets .root.Values.image.pullSecrets }}
imagePullSecrets:
  {{- range . }}
  - name: {{ kindIs "map" . | ternary (get (kindIs "map" . | ternary . dict) "name") . | quote }}
  {{- end }}
{{- end }}
{{- with .values.priorityClassName }}
priorityClassName: {{ . | quote }}
{{- end }}
{{- with .values.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .values.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .values.affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{- /* Environment of a service: the chart's settings, replaced by the user's, in a fixed order.
       Takes (dict "root" $ "settings" dict "overrides" dict). A name stands once: server-side apply refuses doubles. */ -}}
{{- define "sn17.env" -}}
{{- with .extra }}
{{- toYaml . }}
{{- end }}
{{- $common := dict
  "SN17_HOST" "any"
  "SN17_LOG_FORMAT" .root.Values.log.format
  "SN17_LOG_LEVEL" .root.Values.log.level -}}
{{- $all := merge (dict) .overrides .settings $common -}}
{{- range $name := keys $all | sortAlpha }}
{{- $value := get $all $name }}
{{- /* Numbers of a values file are floats, and a large one would print as 1e+06. */}}
{{- if and (kindIs "float64" $value) (eq (floor $value) $value) }}{{ $value = int64 $value }}{{ end }}
- name: {{ $name }}
  value: {{ $value | toString | quote }}
{{- end }}
{{- end -}}

{{- define "sn17.adminSecret" -}}
{{- default (printf "%s-admin-token" (include "sn17.fullname" .)) .Values.adminToken.existingSecret -}}
{{- end -}}

{{- define "sn17.adminMount" -}}
- name: admin-token
  mountPath: /var/run/sn17/admin
  readOnly: true
{{- end -}}

{{- define "sn17.adminVolume" -}}
- name: admin-token
  secret:
    secretName: {{ include "sn17.adminSecret" . }}
    defaultMode: 0440
    items:
      - key: token
        path: token
{{- end -}}

{{- define "sn17.tmpMount" -}}
- name: tmp
  mountPath: /tmp
{{- end -}}

{{- define "sn17.tmpVolume" -}}
- name: tmp
  emptyDir:
    sizeLimit: 1Gi
{{- end -}}

{{- /* The miner's hotkey Secret: the user's, or the well-known one of the local network. */ -}}
{{- define "sn17.localHotkey" -}}
{{- if and .Values.localValidators.enabled (eq .Values.miner.chain.source "http") -}}true{{- end -}}
{{- end -}}

{{- /* Seed and address of the local network's well-known key; a test holds one against the other. */ -}}
{{- define "sn17.localHotkeySeed" -}}
{{- sha256sum "sn17 local network: this key is public, anyone may sign with it" -}}
{{- end -}}

{{- define "sn17.localHotkeyAddress" -}}
5Fdvf5hNH5ww9mDFtkgjyb76pzUrGLqvqVvi4rUqma2mgRGw
{{- end -}}

{{- define "sn17.hotkeySecret" -}}
{{- if include "sn17.localHotkey" . -}}
{{ include "sn17.fullname" . }}-local-hotkey
{{- else -}}
{{ required "miner.hotkey.existingSecret: name the Secret that holds the hotkey (sn17 wallet secret makes it)" .Values.miner.hotkey.existingSecret }}
{{- end -}}
{{- end -}}

{{- /* The miner's sources of work beside the validators, as the JSON of SN17_GATEWAYS. */ -}}
{{- define "sn17.minerGateways" -}}
{{- $sources := list -}}
{{- if and .Values.gateway.enabled (gt (float64 .Values.miner.ownGatewayWeight) 0.0) -}}
{{- $scheme := ternary "https" "http" (not (empty .Values.gateway.tls.existingSecret)) -}}
{{- $url := printf "%s://%s-gateway.%s.svc.%s:8404" $scheme (include "sn17.fullname" .) .Release.Namespace .Values.clusterDomain -}}
{{- $own := dict "name" "own" "url" $url "weight" .Values.miner.ownGatewayWeight "follow_nodes" false -}}
{{- with .Values.gateway.tls.existingSecret }}{{ $_ := set $own "ca_file" "/var/run/sn17/gateway-ca/own/ca.crt" }}{{ end -}}
{{- with .Values.gateway.settings.SN17_TASK_SECONDS }}{{ $_ := set $own "task_seconds" . }}{{ end -}}
{{- $sources = append $sources $own -}}
{{- end -}}
{{- $names := dict "hotkey_file" "hotkeySecret" "weight" "weight" "worker_id" "workerId" "follow_nodes" "followNodes" "task_seconds" "taskSeconds" "poll_seconds" "pollSeconds" "ca_file" "caSecret" -}}
{{- range $gateway := .Values.miner.gateways -}}
{{- $source := dict "name" $gateway.name "url" $gateway.url -}}
{{- range $setting, $name := $names -}}
{{- if hasKey $gateway $name -}}
{{- $value := get $gateway $name -}}
{{- if eq $name "hotkeySecret" }}{{ $value = printf "/var/run/sn17/gateway-hotkey/%s/hotkey" $gateway.name }}{{ end -}}
{{- if eq $name "caSecret" }}{{ $value = printf "/var/run/sn17/gateway-ca/%s/ca.crt" $gateway.name }}{{ end -}}
{{- $_ := set $source $setting $value -}}
{{- end -}}
{{- end -}}
{{- $sources = append $sources $source -}}
{{- end -}}
{{- toJson $sources -}}
{{- end -}}

{{- /* Secrets of these sources, as YAML: files: [{name, path, secret, key}]. */ -}}
{{- define "sn17.minerGatewayFiles" -}}
files:
  {{- if and .Values.gateway.enabled (gt (float64 .Values.miner.ownGatewayWeight) 0.0) .Values.gateway.tls.existingSecret }}
  - {name: gateway-ca-own, path: gateway-ca/own, secret: {{ .Values.gateway.tls.existingSecret | quote }}, key: ca.crt}
  {{- end }}
  {{- range .Values.miner.gateways }}
  {{- if .hotkeySecret }}
  - {name: gateway-hotkey-{{ .name }}, path: gateway-hotkey/{{ .name }}, secret: {{ .hotkeySecret | quote }}, key: hotkey}
  {{- end }}
  {{- if .caSecret }}
  - {name: gateway-ca-{{ .name }}, path: gateway-ca/{{ .name }}, secret: {{ .caSecret | quote }}, key: ca.crt}
  {{- end }}
  {{- end }}
{{- end -}}

{{- define "sn17.prometheusUrl" -}}
{{- default (printf "http://%s-prometheus:9090" (include "sn17.fullname" .)) .Values.prometheus.url -}}
{{- end -}}

{{- /* The same for a reader in another namespace. */ -}}
{{- define "sn17.prometheusAddress" -}}
{{- default (printf "http://%s-prometheus.%s.svc.%s:9090" (include "sn17.fullname" .) .Release.Namespace .Values.clusterDomain) .Values.prometheus.url -}}
{{- end -}}

{{- /* How many workers the Deployment names: with autoscaling those that it has, so that an upgrade ends none. */ -}}
{{- define "sn17.workers" -}}
{{- $count := .Values.trellis.replicas -}}
{{- if ne .Values.trellis.autoscaling.kind "none" -}}
{{- $installed := lookup "apps/v1" "Deployment" .Release.Namespace (printf "%s-trellis" (include "sn17.fullname" .)) -}}
{{- $count = dig "spec" "replicas" $count ($installed | default dict) -}}
{{- end -}}
{{- int $count -}}
{{- end -}}

{{- /* Whether the workers read their model from a volume: the torch backend, unless its image brings the model. */ -}}
{{- define "sn17.modelOnVolume" -}}
{{- if and (eq .Values.trellis.backend "torch") (not .Values.trellis.model.bundled) -}}true{{- end -}}
{{- end -}}

{{- /* Values of commits that are missing, as `--set` options; empty: a filled claim is named, or all are there. */ -}}
{{- define "sn17.modelMissing" -}}
{{- $model := .Values.trellis.model -}}
{{- $missing := list -}}
{{- if and (include "sn17.modelOnVolume" .) (not $model.existingClaim) (not $model.image) -}}
{{- range $path, $part := dict "" $model "decoders." $model.decoders "textEncoder." $model.textEncoder -}}
{{- if not $part.revision -}}
{{- $missing = append $missing (printf "--set trellis.model.%srevision=COMMIT-OF-%s" $path (base $part.repository)) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- join " " $missing -}}
{{- end -}}

{{- /* Whether the init container fetches a model. */ -}}
{{- define "sn17.fetchesModel" -}}
{{- if and (include "sn17.modelOnVolume" .) (not .Values.trellis.model.existingClaim) (not .Values.trellis.model.image) (not (include "sn17.modelMissing" .)) -}}true{{- end -}}
{{- end -}}

{{- define "sn17.modelClaim" -}}
{{- default (printf "%s-models" (include "sn17.fullname" .)) .Values.trellis.model.existingClaim -}}
{{- end -}}

{{- /* Whether an "auto" switch is on. Takes (dict "root" $ "switch" value "api" "group/version/Kind"). */ -}}
{{- define "sn17.auto" -}}
{{- $switch := toString .switch -}}
{{- if or (eq $switch "true") (and (eq $switch "auto") (.root.Capabilities.APIVersions.Has .api)) -}}true{{- end -}}
{{- end -}}

{{- /* Resources of a worker: from `trellis.memory`, `cpu` and `gpu`; `trellis.resources` comes over them. */ -}}
{{- define "sn17.trellisResources" -}}
{{- $values := .Values.trellis -}}
{{- $requests := dict "cpu" (toString $values.cpu.request) "memory" $values.memory.limit -}}
{{- $limits := dict "memory" $values.memory.limit -}}
{{- with $values.cpu.limit }}{{ $_ := set $limits "cpu" (toString .) }}{{ end -}}
{{- if and (eq $values.backend "torch") $values.gpu.enabled }}{{ $_ := set $limits $values.gpu.resource $values.gpu.count }}{{ end -}}
{{- $resources := mergeOverwrite (dict "requests" $requests "limits" $limits) (deepCopy $values.resources) -}}
{{- if ne (toString $resources.requests.memory) (toString $resources.limits.memory) -}}
{{- fail "trellis.resources: the memory request must equal the limit, so that the node has the memory that a worker's thresholds are shares of; set trellis.memory.limit" -}}
{{- end -}}
{{- toYaml $resources -}}
{{- end -}}

{{- /* Size in the miner's claim template: the one it was installed with, else the value. */ -}}
{{- define "sn17.journalSize" -}}
{{- $installed := lookup "apps/v1" "StatefulSet" .Release.Namespace (printf "%s-miner" (include "sn17.fullname" .)) -}}
{{- $size := .Values.miner.persistence.size -}}
{{- range dig "spec" "volumeClaimTemplates" list ($installed | default dict) -}}
{{- if eq .metadata.name "state" }}{{ $size = .spec.resources.requests.storage }}{{ end -}}
{{- end -}}
{{- $size -}}
{{- end -}}
