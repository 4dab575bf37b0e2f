{{- /* The flow table, the one place where pods are allowed to talk to pods (docs/network.md says the same in words).
       YAML: flows: [{from, to, ports}], outside: {component: [destination]}. */ -}}
{{- define "sn17.flows" -}}
{{- $bundled := not .Values.prometheus.url -}}
{{- $scraped := list "trellis" "fixer" -}}
{{- if .Values.miner.enabled }}{{ $scraped = append $scraped "miner" }}{{ end -}}
{{- if .Values.operator.enabled }}{{ $scraped = append $scraped "operator" }}{{ end -}}
{{- if .Values.gateway.enabled }}{{ $scraped = append $scraped "gateway" }}{{ end -}}
{{- if .Values.localValidators.enabled }}{{ $scraped = append $scraped "validators" }}{{ end -}}
components:
  {{- range $scraped }}
  - {{ . }}
  {{- end }}
  {{- if $bundled }}
  - prometheus
  {{- end }}
  {{- if .Values.grafana.enabled }}
  - grafana
  {{- end }}
  {{- if .Values.crds.upgrade.enabled }}
  - crd-upgrade
  {{- end }}
  - smoke
scraped:
  {{- toYaml $scraped | nindent 2 }}
flows:
  - {from: smoke, to: trellis, ports: [10006]}
  - {from: smoke, to: fixer, ports: [8080]}
  {{- if .Values.miner.enabled }}
  - {from: miner, to: trellis, ports: [10006]}
  - {from: miner, to: fixer, ports: [8080]}
  {{- if .Values.localValidators.enabled }}
  - {from: miner, to: validators, ports: [8099, 8100-8131]}
  {{- end }}
  {{- if .Values.gateway.enabled }}
  - {from: miner, to: gateway, ports: [8404]}
  {{- if .Values.gateway.page.enabled }}
  - {from: gateway, to: miner, ports: [9090]}
  {{- end }}
  {{- end }}
  {{- end }}
  {{- if .Values.operator.enabled }}
  - {from: operator, to: trellis, ports: [9090, 10006]}
  {{- end }}
  {{- if $bundled }}
  {{- range $scraped }}
  - {from: prometheus, to: {{ . }}, ports: [9090]}
  {{- end }}
  {{- if .Values.operator.enabled }}
  - {from: operator, to: prometheus, ports: [9090]}
  {{- end }}
  {{- if .Values.grafana.enabled }}
  - {from: grafana, to: prometheus, ports: [9090]}
  {{- end }}
  - {from: smoke, to: prometheus, ports: [9090]}
  {{- end }}
outside:
  {{- if .Values.crds.upgrade.enabled }}
  crd-upgrade: [dns, apiServer]
  {{- end }}
  smoke: [dns{{ if not $bundled }}, prometheus{{ end }}]
  {{- if include "sn17.fetchesModel" . }}
  trellis: [dns, modelHub]
  {{- end }}
  {{- if .Values.miner.enabled }}
  miner: [dns{{ if or (not .Values.localValidators.enabled) .Values.miner.gateways }}, internet{{ else if .Values.networkPolicy.minerTo }}, minerPeers{{ end }}]
  {{- end }}
  {{- if and .Values.gateway.enabled (or .Values.gateway.postgres.existingSecret (and .Values.gateway.page.enabled .Values.miner.enabled)) }}
  gateway: [dns{{ if .Values.gateway.postgres.existingSecret }}, postgres{{ end }}]
  {{- end }}
  {{- if .Values.operator.enabled }}
  operator: [dns, apiServer{{ if not $bundled }}, prometheus{{ end }}]
  {{- end }}
  {{- if $bundled }}
  prometheus: [dns, apiServer{{ if .Values.prometheus.alertmanagers }}, alertmanager{{ end }}]
  {{- end }}
  {{- if .Values.grafana.enabled }}
  grafana: [dns{{ if not $bundled }}, prometheus{{ end }}]
  {{- end }}
{{- end -}}

{{- define "sn17.policyPorts" -}}
ports:
  {{- range . }}
  {{- $range := splitList "-" (toString .) }}
  - protocol: TCP
    port: {{ first $range }}
    {{- if gt (len $range) 1 }}
    endPort: {{ last $range }}
    {{- end }}
  {{- end }}
{{- end -}}

{{- define "sn17.policyPeer" -}}
- podSelector:
    matchLabels:
      {{- include "sn17.selector" . | nindent 6 }}
{{- end -}}

{{- /* Egress rule to a destination outside the release. Takes (dict "root" $ "destination" name). */ -}}
{{- define "sn17.policyOutside" -}}
{{- $network := .root.Values.networkPolicy -}}
{{- if eq .destination "dns" -}}
- ports:
    {{- range $network.dnsPorts }}
    - {protocol: UDP, port: {{ . }}}
    - {protocol: TCP, port: {{ . }}}
    {{- end }}
{{- else if eq .destination "apiServer" -}}
- to:
    {{- range $network.apiServer.cidrs }}
    - ipBlock: {cidr: {{ . | quote }}}
    {{- end }}
  {{- include "sn17.policyPorts" $network.apiServer.ports | nindent 2 }}
{{- else if or (eq .destination "internet") (eq .destination "modelHub") -}}
- to:
    {{- range $cidr := $network.internet.cidrs }}
    - ipBlock:
        cidr: {{ $cidr | quote }}
        {{- $except := list }}
        {{- range $network.internet.except }}
        {{- if eq (contains ":" .) (contains ":" $cidr) }}{{ $except = append $except . }}{{ end }}
        {{- end }}
        {{- with $except }}
        except:
          {{- toYaml . | nindent 10 }}
        {{- end }}
    {{- end }}
    {{- with ternary $network.modelHubTo $network.minerTo (eq $.destination "modelHub") }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  {{- if eq .destination "modelHub" }}
  {{- include "sn17.policyPorts" $network.fetchPorts | nindent 2 }}
  {{- end }}
{{- else if eq .destination "minerPeers" -}}
- to:
    {{- toYaml $network.minerTo | nindent 4 }}
{{- else if eq .destination "postgres" -}}
- to:
    {{- toYaml (default (list (dict "namespaceSelector" dict)) $network.gatewayTo) | nindent 4 }}
  {{- include "sn17.policyPorts" $network.postgresPorts | nindent 2 }}
{{- else -}}
{{- $peers := ternary $network.prometheusTo $network.alertmanagerTo (eq .destination "prometheus") -}}
- to:
    {{- if $peers }}
    {{- toYaml $peers | nindent 4 }}
    {{- else }}
    - namespaceSelector: {}
    {{- end }}
{{- end -}}
{{- end -}}

{{- /* Rules of one component's policy, as a YAML list. Takes (dict "root" $ "component" name "table" flows). */ -}}
{{- define "sn17.policyIngress" -}}
{{- $network := .root.Values.networkPolicy -}}
{{- range $flow := .table.flows -}}
{{- if eq $flow.to $.component }}
- from:
    {{- include "sn17.policyPeer" (dict "root" $.root "component" $flow.from) | nindent 4 }}
  {{- include "sn17.policyPorts" $flow.ports | nindent 2 }}
{{- end -}}
{{- end -}}
{{- if and $network.metricsFrom (or (has .component .table.scraped) (eq .component "prometheus")) }}
- from:
    {{- toYaml $network.metricsFrom | nindent 4 }}
  {{- include "sn17.policyPorts" (list 9090) | nindent 2 }}
{{- end -}}
{{- if and $network.gatewayFrom (eq .component "gateway") }}
- from:
    {{- toYaml $network.gatewayFrom | nindent 4 }}
  {{- include "sn17.policyPorts" (list 8404) | nindent 2 }}
{{- end -}}
{{- if and $network.grafanaFrom (eq .component "grafana") }}
- from:
    {{- toYaml $network.grafanaFrom | nindent 4 }}
  {{- include "sn17.policyPorts" (list 3000) | nindent 2 }}
{{- end -}}
{{- end -}}

{{- define "sn17.policyEgress" -}}
{{- range $flow := .table.flows -}}
{{- if eq $flow.from $.component }}
- to:
    {{- include "sn17.policyPeer" (dict "root" $.root "component" $flow.to) | nindent 4 }}
  {{- include "sn17.policyPorts" $flow.ports | nindent 2 }}
{{- end -}}
{{- end -}}
{{- range $destination := default list (index .table.outside .component) }}
{{ include "sn17.policyOutside" (dict "root" $.root "destination" $destination) }}
{{- end -}}
{{- end -}}
