# What people ask to see which images a node has and which are in use; crictl, which they would rather ask, is not on EKS's
# AL2023 image.
set -e
ctr -n k8s.io images ls
ctr -n k8s.io containers ls
