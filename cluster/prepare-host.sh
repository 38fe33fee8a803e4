#!/usr/bin/env bash
# bash cluster/prepare-host.sh
#
# Makes an Ubuntu 22.04 machine ready to run the raycrp image: Docker and, where there is an NVIDIA
# GPU, the driver and the container toolkit. Safe to repeat. `ray up` runs it on each new cloud
# node; on a machine of your own run it once by hand. Five minutes on a new node; bake a machine
# image from one that is ready to save them.
set -euo pipefail

# 570 and 580 are the last driver branches for V100; newer ones leave Volta out.
DRIVER_BRANCH="${DRIVER_BRANCH:-570-server}"
KEYRING=/usr/share/keyrings/nvidia-container-toolkit.gpg
TOOLKIT_URL=https://nvidia.github.io/libnvidia-container

install() {
    sudo DEBIAN_FRONTEND=noninteractive apt-get -o DPkg::Lock::Timeout=300 install -y -qq "$@"
}

if command -v cloud-init > /dev/null; then
    sudo cloud-init status --wait > /dev/null || true
fi

if ! command -v docker > /dev/null; then
    sudo apt-get -o DPkg::Lock::Timeout=300 update -qq
    install docker.io rsync pciutils
fi
sudo usermod -aG docker "$USER"

if lspci | grep -qi nvidia; then
    if ! command -v nvidia-smi > /dev/null; then
        install ubuntu-drivers-common
        sudo ubuntu-drivers install --gpgpu "nvidia:${DRIVER_BRANCH}"
        install "nvidia-utils-${DRIVER_BRANCH}"
        sudo modprobe nvidia
    fi
    if ! command -v nvidia-ctk > /dev/null; then
        curl -fsSL "${TOOLKIT_URL}/gpgkey" | sudo gpg --yes --dearmor -o "${KEYRING}"
        curl -fsSL "${TOOLKIT_URL}/stable/deb/nvidia-container-toolkit.list" \
            | sed "s#deb https://#deb [signed-by=${KEYRING}] https://#" \
            | sudo tee /etc/apt/sources.list.d/nvidia-container-toolkit.list > /dev/null
        sudo apt-get -o DPkg::Lock::Timeout=300 update -qq
        install nvidia-container-toolkit
        sudo nvidia-ctk runtime configure --runtime=docker
        sudo systemctl restart docker
    fi
    nvidia-smi --query-gpu=name,memory.total,driver_version --format=csv
fi
