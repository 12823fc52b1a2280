"""As much of LeRobot as the plugin of ours touches; the real one is in plugins/lerobot_policy_molmoact2/check.sh."""
