{{- /* How pods are scraped: by pod, never by Service, since a Service hides a cordoned worker.
       Every series carries pod_uid, pod, node, namespace and release; the job is the component. */ -}}
{{- define "sn17.prometheusConfig" -}}
{{- $interval := int .Values.prometheus.scrapeIntervalSeconds -}}
global:
  scrape_interval: {{ $interval }}s
  scrape_timeout: {{ min $interval 5 }}s
  evaluation_interval: {{ max $interval 15 }}s
rule_files:
  - /etc/prometheus/rules.yml
{{- with .Values.prometheus.alertmanagers }}
alerting:
  alertmanagers:
    - static_configs:
        - targets:
            {{- toYaml . | nindent 12 }}
{{- end }}
scrape_configs:
  - job_name: sn17
    kubernetes_sd_configs:
      - role: pod
        namespaces:
          names: [{{ .Release.Namespace | quote }}]
        selectors:
          - role: pod
            label: app.kubernetes.io/part-of=sn17,app.kubernetes.io/instance={{ .Release.Name }}
    relabel_configs:
      - source_labels: [__meta_kubernetes_pod_container_port_name]
        regex: ops
        action: keep
      - source_labels: [__meta_kubernetes_pod_phase]
        regex: Succeeded|Failed
        action: drop
      - source_labels: [__meta_kubernetes_pod_label_app_kubernetes_io_component]
        target_label: job
      - source_labels: [__meta_kubernetes_pod_uid]
        target_label: pod_uid
      - source_labels: [__meta_kubernetes_pod_name]
        target_label: pod
      - source_labels: [__meta_kubernetes_pod_node_name]
        target_label: node
      - source_labels: [__meta_kubernetes_namespace]
        target_label: namespace
      - source_labels: [__meta_kubernetes_pod_label_app_kubernetes_io_instance]
        target_label: release
{{- end -}}
