"""The record in MLflow. Only this package imports mlflow."""
