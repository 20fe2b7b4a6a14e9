// SPDX-License-Identifier: GPL-2.0

#include <linux/completion.h>
#include <linux/module.h>
#include <linux/virtio_config.h>

/* udev loads the module when it sees the device. */
MODULE_ALIAS("virtio:d0000003Dv*");
static_assert(VIRTIO_ID_FGDP == 0x3d);

int fgdp_helper_virtio_find_vqs(struct virtio_device *vdev, unsigned int nvqs,
				struct virtqueue *vqs[],
				struct virtqueue_info vqs_info[])
{
	return virtio_find_vqs(vdev, nvqs, vqs, vqs_info, NULL);
}

void fgdp_helper_virtio_del_vqs(struct virtio_device *vdev)
{
	vdev->config->del_vqs(vdev);
}

bool fgdp_helper_virtio_get_shm_region(struct virtio_device *vdev,
				       struct virtio_shm_region *region, u8 id)
{
	return virtio_get_shm_region(vdev, region, id);
}

void fgdp_helper_virtio_device_ready(struct virtio_device *vdev)
{
	virtio_device_ready(vdev);
}

/* Little-endian words; false when the device has no configuration space. */
bool fgdp_helper_virtio_cread_words(struct virtio_device *vdev,
				    unsigned int offset, void *buf, size_t words)
{
	if (!vdev->config->get)
		return false;
	__virtio_cread_many(vdev, offset, buf, words, 4);
	return true;
}

bool fgdp_helper_virtio_has_feature(const struct virtio_device *vdev,
				    unsigned int fbit)
{
	return __virtio_test_bit(vdev, fbit);
}

void fgdp_helper_init_completion(struct completion *x)
{
	init_completion(x);
}
