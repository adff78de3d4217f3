{{- define "meshgw.selector" -}}
app.kubernetes.io/name: meshgw
app.kubernetes.io/component: controller
{{- end }}

{{- define "meshgw.labels" -}}
{{ include "meshgw.selector" . }}
app.kubernetes.io/part-of: meshgw
app.kubernetes.io/managed-by: {{ .Release.Service }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end }}

{{- define "meshgw.image" -}}
{{- if .Values.image.digest -}}
{{ .Values.image.repository }}@{{ .Values.image.digest }}
{{- else -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end -}}
{{- end }}

{{- /* A Role (namespace given) or ClusterRole with the generated rules of one reach: (list $ role file namespace). */}}
{{- define "meshgw.role" -}}
{{- $root := index . 0 -}}
{{- $namespace := index . 3 -}}
apiVersion: rbac.authorization.k8s.io/v1
kind: {{ ternary "Role" "ClusterRole" (ne $namespace "") }}
metadata:
  name: {{ index . 1 }}
  {{- with $namespace }}
  namespace: {{ . }}
  {{- end }}
  labels:
    {{- include "meshgw.labels" $root | nindent 4 }}
rules:
  {{- $root.Files.Get (printf "files/rules-%s.yaml" (index . 2)) | fromYamlArray | toYaml | nindent 2 }}
{{- end }}

{{- /* What binds a role to the controller, everywhere or in a namespace: (list $ role roleKind namespace). */}}
{{- define "meshgw.binding" -}}
{{- $root := index . 0 -}}
{{- $namespace := index . 3 -}}
apiVersion: rbac.authorization.k8s.io/v1
kind: {{ ternary "RoleBinding" "ClusterRoleBinding" (ne $namespace "") }}
metadata:
  name: {{ index . 1 }}
  {{- with $namespace }}
  namespace: {{ . }}
  {{- end }}
  labels:
    {{- include "meshgw.labels" $root | nindent 4 }}
roleRef:
  apiGroup: rbac.authorization.k8s.io
  kind: {{ index . 2 }}
  name: {{ index . 1 }}
subjects:
  - kind: ServiceAccount
    name: meshgw
    namespace: {{ $root.Release.Namespace }}
{{- end }}
