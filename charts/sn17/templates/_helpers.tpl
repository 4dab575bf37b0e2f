{{- define "sn17.fullname" -}}
{{- default .Release.Name .Values.fullnameOverride | trunc 40 | trimSuffix "-" -}}
{{- end -}}

{{- /* Labels that select a component's pods. Takes (dict "root" $ "component" name). */ -}}
{{- define "sn17.selector" -}}
app.kubernetes.io/name: sn17
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .component }}
{{- end -}}

{{- /* Labels of every object of a component. */ -}}
{{- define "sn17.labels" -}}
{{ include "sn17.selector" . }}
app.kubernetes.io/part-of: sn17
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
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
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
{{- with .root.Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- /* Reference of one of the sn17 images. Takes (dict "root" $ "image" values "suffix" "-torch"). */ -}}
{{- define "sn17.image" -}}
{{- $registry := .root.Values.image.registry -}}
{{- $repository := ternary .image.repository (printf "%s/%s" (trimSuffix "/" $registry) .image.repository) (empty $registry) -}}
{{- if .image.digest -}}
{{ $repository }}@{{ .image.digest }}
{{- else -}}
{{ $repository }}:{{ default (printf "%s%s" .root.Chart.AppVersion (default "" .suffix)) .image.tag }}
{{- end -}}
{{- end -}}

{{- /* Reference of an image of another project. */ -}}
{{- define "sn17.foreignImage" -}}
{{- if .digest -}}{{ .repository }}@{{ .digest }}{{- else -}}{{ .repository }}:{{ .tag }}{{- end -}}
{{- end -}}

{{- /* What every pod's spec begins with. Takes (dict "root" $ "account" name "token" bool "values" component values). */ -}}
{{- define "sn17.podSpec" -}}
serviceAccountName: {{ .account }}
automountServiceAccountToken: {{ .token }}
enableServiceLinks: false
securityContext:
  {{- toYaml .root.Values.podSecurityContext | nindent 2 }}
{{- with .root.Values.image.pullSecrets }}
imagePullSecrets:
  {{- range . }}
  - name: {{ . }}
  {{- end }}
{{- end }}
{{- with .values.priorityClassName }}
priorityClassName: {{ . }}
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
{{- $common := dict
  "SN17_HOST" "0.0.0.0"
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

{{- define "sn17.prometheusUrl" -}}
{{- default (printf "http://%s-prometheus:9090" (include "sn17.fullname" .)) .Values.prometheus.url -}}
{{- end -}}

{{- /* Whether the workers read their model from a volume: the torch backend, unless its image brings the model. */ -}}
{{- define "sn17.modelOnVolume" -}}
{{- if and (eq .Values.trellis.backend "torch") (not .Values.trellis.model.bundled) -}}true{{- end -}}
{{- end -}}

{{- /* Whether neither a commit to fetch nor a filled claim is named. */ -}}
{{- define "sn17.modelMissing" -}}
{{- if and (include "sn17.modelOnVolume" .) (not .Values.trellis.model.revision) (not .Values.trellis.model.existingClaim) -}}true{{- end -}}
{{- end -}}

{{- /* Whether the init container fetches a model. */ -}}
{{- define "sn17.fetchesModel" -}}
{{- if and (include "sn17.modelOnVolume" .) (not .Values.trellis.model.existingClaim) .Values.trellis.model.revision -}}true{{- end -}}
{{- end -}}

{{- define "sn17.modelClaim" -}}
{{- default (printf "%s-models" (include "sn17.fullname" .)) .Values.trellis.model.existingClaim -}}
{{- end -}}

{{- /* Whether an "auto" switch is on. Takes (dict "root" $ "switch" value "api" "group/version/Kind"). */ -}}
{{- define "sn17.auto" -}}
{{- $switch := toString .switch -}}
{{- if or (eq $switch "true") (and (eq $switch "auto") (.root.Capabilities.APIVersions.Has .api)) -}}true{{- end -}}
{{- end -}}
