variable "configs_file" {
  description = "The JSON file with one entry per pipeline."
  type        = string
  default     = "configs.json"
}

variable "common_settings_file" {
  description = "The JSON file with what all pipelines share."
  type        = string
  default     = "common_settings.json"
}

# A string, because Terraform would read a map from the environment as HCL, in which a password's `${` is a template.
variable "credentials" {
  description = "Secrets by the name of the entry, as JSON: {\"acme\": {\"username\": \"\", \"password\": \"\", \"slack_webhook\": \"\"}} (or teams_webhook, json_webhook). They win over configs.json. Set it as TF_VAR_credentials; neither state nor plan holds it."
  type        = string
  default     = "{}"
  sensitive   = true
  ephemeral   = true

  validation {
    condition = alltrue(try([
      for entry in values(jsondecode(coalesce(var.credentials, "{}"))) :
      length(setsubtract(keys(entry), ["username", "password", "slack_webhook", "teams_webhook", "json_webhook"])) == 0 && alltrue([for value in values(entry) : value == tostring(value)])
    ], [false]))
    error_message = "TF_VAR_credentials must be a JSON object by entry name, each with username, password, slack_webhook, teams_webhook and json_webhook (strings, all optional): {\"acme\": {\"username\": \"etl\", \"password\": \"...\"}}"
  }
}
