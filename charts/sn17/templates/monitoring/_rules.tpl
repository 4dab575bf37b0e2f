{{- /* Every threshold that rules and dashboards show, by name. Those of the operator are its SN17Miner's: the
       chart's default or what `operator.spec` sets. */ -}}
{{- define "sn17.thresholds" -}}
{{- $rules := dig "rules" dict .Values.operator.spec -}}
{{- $alerts := .Values.monitoring.rules.thresholds -}}
cordon_ratio: {{ divf (dig "memory" "highPercent" 80 $rules) 100 }}
emergency_ratio: {{ divf (dig "memory" "emergencyPercent" 90 $rules) 100 }}
degraded_gaussians: {{ dig "gaussians" "minimumMean" 150000 $rules | int64 }}
canary_drift_ratio: {{ divf (dig "canary" "driftPercent" 20 $rules) 100 }}
acceptance_gaussians: {{ .Values.acceptance.gaussiansMean | int64 }}
acceptance_seconds: {{ .Values.acceptance.generationSeconds }}
success_least: {{ $alerts.successRatio }}
success_expected: {{ $alerts.successExpectedRatio }}
success_good: {{ $alerts.successGoodRatio }}
alert_yield: {{ $alerts.yieldRatio }}
alert_memory: {{ $alerts.memoryRatio }}
alert_gaussians: {{ $alerts.gaussiansMean | int64 }}
alert_unrepairable: {{ $alerts.unrepairableRatio }}
alert_clock_skew: {{ $alerts.clockSkewSeconds }}
alert_gateway_wait: {{ $alerts.gatewayWaitSeconds }}
{{- $burn := .Values.monitoring.rules.burnRate }}
{{- range $name := list "fast" "slow" }}
{{- $share := mulf (get $burn $name) (subf 1 $burn.objective) }}
{{- if and $burn.enabled (ge $share 1.0) }}
{{- fail (printf "monitoring.rules.burnRate.%s: a burn rate of %v cannot be reached with an objective of %v; the most is %.2f, when every task fails" $name (get $burn $name) $burn.objective (divf 1 (subf 1 $burn.objective))) }}
{{- end }}
burn_{{ $name }}: {{ $share }}
burn_{{ $name }}_rate: {{ get $burn $name }}
{{- end }}
{{- end -}}

{{- /* A text with `@name@` replaced by that threshold; a JSON string that is only `"@name@"` becomes a number.
       Takes (dict "root" $ "text" text). */ -}}
{{- define "sn17.withThresholds" -}}
{{- $text := .text -}}
{{- range $name, $value := include "sn17.thresholds" .root | fromYaml -}}
{{- $number := toJson $value -}}
{{- if and (kindIs "float64" $value) (eq (floor $value) $value) }}{{ $number = int64 $value | toString }}{{ end -}}
{{- $text = $text | replace (printf "\"@%s@\"" $name) $number | replace (printf "@%s@" $name) $number -}}
{{- end -}}
{{- $text -}}
{{- end -}}

{{- /* The matchers of this release's own series, as prometheus/_config.tpl and monitors.yaml label them. */ -}}
{{- define "sn17.ownSeries" -}}
namespace="{{ .Release.Namespace }}",release="{{ .Release.Name }}"
{{- end -}}

{{- /* rules/sn17.yaml without the alerts left out, with thresholds filled in and the runbook on each. */ -}}
{{- define "sn17.rules" -}}
{{- $disabled := .Values.monitoring.rules.disabled -}}
{{- /* It fires where an operator is missing, so not where none is wanted. */ -}}
{{- if not .Values.operator.enabled }}{{ $disabled = append $disabled "SN17OperatorDown" }}{{ end -}}
{{- $base := trimSuffix "/" .Values.monitoring.rules.runbookBaseUrl -}}
{{- $suffix := .Values.monitoring.rules.runbookSuffix -}}
{{- $groups := list -}}
{{- $files := list "rules/sn17.yaml" -}}
{{- if .Values.monitoring.rules.burnRate.enabled }}{{ $files = append $files "rules/burn-rate.yaml" }}{{ end -}}
{{- range $file := $files -}}
{{- $text := $.Files.Get $file | replace "@own@" (include "sn17.ownSeries" $) -}}
{{- range $group := (include "sn17.withThresholds" (dict "root" $ "text" $text) | fromYaml).groups -}}
{{- $rules := list -}}
{{- range $rule := $group.rules -}}
{{- if not (has (default "" $rule.alert) $disabled) -}}
{{- if $rule.alert -}}
{{- $_ := set $rule.annotations "runbook" (printf "docs/runbooks/%s.md" $rule.alert) -}}
{{- with $base }}{{ $_ := set $rule.annotations "runbook_url" (printf "%s/%s%s" . $rule.alert $suffix) }}{{ end -}}
{{- end -}}
{{- $rules = append $rules $rule -}}
{{- end -}}
{{- end -}}
{{- if $rules -}}
{{- $groups = append $groups (dict "name" $group.name "rules" $rules) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- dict "groups" $groups | toYaml -}}
{{- end -}}

{{- /* A dashboard for this release: its thresholds, and a uid and title of its own, so that the releases of one Grafana
       do not replace each other's boards. Takes (dict "root" $ "path" file). */ -}}
{{- define "sn17.dashboard" -}}
{{- $board := base .path | trimSuffix ".json" -}}
{{- $release := printf "%s/%s" .root.Release.Namespace .root.Release.Name -}}
{{- $json := include "sn17.withThresholds" (dict "root" .root "text" (.root.Files.Get .path)) | fromJson -}}
{{- $_ := set $json "uid" (printf "sn17-%s-%s" (trunc 20 $board) (sha256sum $release | trunc 10)) -}}
{{- $_ := set $json "title" (printf "%s (%s)" $json.title $release) -}}
{{- $json | toPrettyJson -}}
{{- end -}}
