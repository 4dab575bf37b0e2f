{{- /* rules/sn17.yaml without the alerts left out, with the runbook's address on each. */ -}}
{{- define "sn17.rules" -}}
{{- $disabled := .Values.monitoring.rules.disabled -}}
{{- $base := trimSuffix "/" .Values.monitoring.rules.runbookBaseUrl -}}
{{- $groups := list -}}
{{- range $group := (.Files.Get "rules/sn17.yaml" | fromYaml).groups -}}
{{- $rules := list -}}
{{- range $rule := $group.rules -}}
{{- if not (has (default "" $rule.alert) $disabled) -}}
{{- if $rule.alert -}}
{{- $_ := set $rule.annotations "runbook_url" (printf "%s/%s.md" $base $rule.alert) -}}
{{- end -}}
{{- $rules = append $rules $rule -}}
{{- end -}}
{{- end -}}
{{- if $rules -}}
{{- $groups = append $groups (dict "name" $group.name "rules" $rules) -}}
{{- end -}}
{{- end -}}
{{- dict "groups" $groups | toYaml -}}
{{- end -}}
